// Says of a table that is wider than the screen that it scrolls.
const mark = () => {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) {
    wrap.toggleAttribute("data-scrolls", wrap.scrollWidth > wrap.clientWidth + 1);
    if (wrap.hasAttribute("data-scrolls")) wrap.tabIndex = 0;
  }
};
new ResizeObserver(mark).observe(document.documentElement);
addEventListener("load", mark);
