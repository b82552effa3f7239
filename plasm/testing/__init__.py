"""Tests for models of one's own: ``ModelTester`` holds a family to what plasm's own promise.

Needs the extra ``plasm-video[testing]``; of the extra ``onnx`` it makes use if it is there.
"""

import pytest

pytest.register_assert_rewrite("plasm.testing.model_tester")

from .model_tester import PROMISES, ModelTester  # noqa: E402

__all__ = ["PROMISES", "ModelTester"]
