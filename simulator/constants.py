"""Constants of nature that more than one part of the physics needs."""

# Gyromagnetic ratio of the free proton over 2 pi, CODATA 2018. That of protons in water is 26 ppm less: a constant of
# the chemical shift scale, not of the susceptibility shift.
PROTON = 42.577478518e6  # Hz/T
