# %% [markdown]
# # Forecast rain
#
# A storm that moves over a made-up country, written as weather services write their composites, and the next hour of it.
# With composites of your own, skip what writes them. Needs `pip install "plasm-video[cli,radar]"`.

# %%
from datetime import datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from plasm.data.radar import denormalize, normalize, open_sequence
from plasm.rain import predict_rain

# %% [markdown]
# Rain rates in mm/h, (18, 256, 256): a front with showers in it, 1 km a cell, 5 minutes a frame. A corner is out of range.

# %%
y, x = np.mgrid[:256, :256]
rates = []
for frame in range(18):
    along, across = x - 60 - 2.5 * frame, y - 100 - frame
    front = 8 * np.exp(-((along - 0.3 * across) ** 2) / 300) * (1 + np.sin(across / 9) * np.cos(along / 7))
    front[front < 0.1] = 0
    front[(x > 220) & (y < 40)] = np.nan
    rates.append(front.astype(np.float32))
times = [datetime(2024, 6, 1, 12) + timedelta(minutes=5 * frame) for frame in range(18)]

# %% [markdown]
# As ODIM HDF5, what most of Europe has: a file a time. 65535 is missing, 0 is dry.

# %%
projection = "+proj=laea +lat_0=55 +lon_0=10 +x_0=1950000 +y_0=-2100000 +ellps=WGS84"
Path("odim").mkdir(exist_ok=True)
for time, rate in zip(times, rates, strict=True):
    with h5py.File(f"odim/{time:%Y%m%d%H%M}.h5", "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_2")
        what, where = file.create_group("what"), file.create_group("where")
        what.attrs.update(object=np.bytes_("COMP"), date=np.bytes_(f"{time:%Y%m%d}"), time=np.bytes_(f"{time:%H%M%S}"))
        where.attrs.update(projdef=np.bytes_(projection), xsize=256, ysize=256, xscale=1000.0, yscale=1000.0)
        where.attrs.update(LL_lon=-8.0, LL_lat=34.0, UR_lon=-5.0, UR_lat=36.0)
        data = file.create_group("dataset1/data1")
        data["data"] = np.where(np.isnan(rate), 65535, rate * 100).astype(np.uint16)
        data.create_group("what").attrs.update(
            quantity=np.bytes_("RATE"), gain=0.01, offset=0.0, nodata=65535.0, undetect=0.0
        )

# %% [markdown]
# And as CF NetCDF, all times in one file.

# %%
km = 1000.0 * np.arange(256)
xr.Dataset(
    {"rain": (("time", "y", "x"), np.stack(rates), {"units": "mm h-1", "standard_name": "rainfall_rate"})},
    {"time": times, "y": ("y", km[::-1], {"units": "m", "standard_name": "projection_y_coordinate"}),
     "x": ("x", km, {"units": "m", "standard_name": "projection_x_coordinate"})},
).to_netcdf("storm.nc")  # fmt: skip

# %% [markdown]
# Both are read alike: in the order of time, in mm/h, with NaN where nothing was measured.

# %%
for source in ("odim", "storm.nc"):
    event = open_sequence(source)
    print(source, len(event), "frames every", event.minutes, "minutes;", event.grid)

# %% [markdown]
# The next hour after 12:25, from the six frames up to then. What came is drawn beside it, and pysteps' optical flow, where it
# is installed.

# %%
done = predict_rain("storm.nc", model="plasm_radar", out="forecast.nc", data_args={"at": "2024-06-01T12:25"})
done.files

# %%
from PIL import Image

Image.open("forecast.png")

# %% [markdown]
# The forecast as a CF NetCDF, and how far it is off, in mm/h, beside the last frame left as it is.

# %%
found = xr.open_dataset("forecast.nc")["precip_intensity"]
error = np.nanmean(np.abs(found.values - done.truth), (1, 2))
still = np.nanmean(np.abs(rates[5] - done.truth), (1, 2))
print("minutes  forecast  last frame")
for lead in (0, 5, 11):
    print(f"{5 * (lead + 1):7}{error[lead]:10.3f}{still[lead]:12.3f}")
