"""Constants of nature that more than one part of the physics needs."""

# Gyromagnetic ratio of the free proton over 2 pi, CODATA 2018 (doi:10.1103/RevModPhys.93.025010). In water it is 26 ppm
# less, which belongs to the scale of chemical shifts.
PROTON = 42.577478518e6  # Hz/T

# The same for the nuclei that a scan can be of. 31P from its frequency ratio to the proton, in phosphoric acid
# (IUPAC recommendations 2001, doi:10.1351/pac200173111795).
GYROMAGNETIC = {"1H": PROTON, "31P": PROTON * 0.40480742}  # Hz/T
