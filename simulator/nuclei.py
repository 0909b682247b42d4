"""Gyromagnetic ratios: one value of each, for everything that turns a field into a frequency.

CODATA 2018 for the proton (doi:10.1103/RevModPhys.93.025010); 31P relative to it by IUPAC's frequency ratio of
phosphoric acid, 40.480742 % (Harris 2001, doi:10.1351/pac200173111795).
"""

GYROMAGNETIC_RATIO = {"1H": 42.577478518e6, "31P": 42.577478518e6 * 0.40480742}  # Hz/T
