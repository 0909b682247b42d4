"""Constants of nature that more than one part of the physics needs."""

# Gyromagnetic ratio of the free proton over 2 pi, CODATA 2018 (doi:10.1103/RevModPhys.93.025010). In water it is 26 ppm
# less, which belongs to the scale of chemical shifts.
PROTON = 42.577478518e6  # Hz/T
