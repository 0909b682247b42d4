def run(*a): return []
def dataset(x):
    import xarray as xr
    return xr.Dataset()
