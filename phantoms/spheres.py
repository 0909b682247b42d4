"""Compiled loops of local thickness: distance to a surface of points, largest inscribed spheres, and their union.

Positions are physical (any unit), so that voxels may have three different edges. All loops run in one thread and
in a fixed order: same input, same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

_POINTS = types.float64[:, ::1]
_CELLS = types.int64[:, ::1]
_INDEX = types.int32[:, :, ::1]
_MAP = types.float64[:, :, ::1]
_SOLID = types.uint8[:, :, ::1]
_VECTOR = types.float64[::1]
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}

STEPS = 16
SHRINK = 0.8
REACH = 0.9  # of a voxel: half its space diagonal (.87), as far as a ridge can lie from the nearest centre
SLACK = 1.0  # of a voxel: how far the stairs of a mask stand off the surface they stand for, on either side
SHARE = 0.1  # of the larger sphere's radius: where that is a few voxels, a voxel would be too much
TURN = 0.8  # cosine: neighbours whose surfaces lie in directions closer than 37 degrees see one and the same surface


@njit(types.void(_POINTS, _VECTOR, _SOLID, _INDEX, _MAP), **_OPTIONS)
def nearest(points, edge, solid, index, distance):
    """Carry the nearest surface point through the solid, by eight sweeps along the diagonals.

    `index` (z, y, x) holds the nearest point known so far, -1 for none, `distance` the square of its distance,
    inf for none. A voxel asks the seven neighbours behind it; over the eight sweeps it asks all 26. The segment
    from a voxel to its nearest surface point lies inside the solid, so that nothing need pass outside it
    (Danielsson 1980 doi:10.1016/0146-664X(80)90054-4, with points on the surface in place of voxels).
    """
    nz, ny, nx = solid.shape
    for sweep in range(8):
        sz, sy, sx = 1 - 2 * (sweep & 1), 1 - (sweep & 2), 1 - ((sweep & 4) >> 1)
        for i in range(nz):
            z = i if sz > 0 else nz - 1 - i
            for j in range(ny):
                y = j if sy > 0 else ny - 1 - j
                for k in range(nx):
                    x = k if sx > 0 else nx - 1 - k
                    if solid[z, y, x] == 0:
                        continue
                    best, found = distance[z, y, x], index[z, y, x]
                    for back in range(1, 8):
                        az, ay, ax = z - sz * (back & 1), y - sy * ((back & 2) >> 1), x - sx * ((back & 4) >> 2)
                        if az < 0 or ay < 0 or ax < 0 or az >= nz or ay >= ny or ax >= nx:
                            continue
                        candidate = index[az, ay, ax]
                        if candidate < 0 or candidate == found:
                            continue
                        dz = points[candidate, 0] - z * edge[0]
                        dy = points[candidate, 1] - y * edge[1]
                        dx = points[candidate, 2] - x * edge[2]
                        square = dz * dz + dy * dy + dx * dx
                        if square < best:
                            best, found = square, candidate
                    distance[z, y, x], index[z, y, x] = best, found


@njit(types.void(_POINTS, _CELLS, _VECTOR, _SOLID, _INDEX, _MAP), **_OPTIONS)
def seed(points, cells, edge, solid, index, distance):
    """Offer each surface point to the solid voxels around the one, `cells` (point, 3), that it was found at."""
    nz, ny, nx = solid.shape
    for p in range(points.shape[0]):
        for n in range(125):
            z, y, x = cells[p, 0] + n // 25 - 2, cells[p, 1] + (n // 5) % 5 - 2, cells[p, 2] + n % 5 - 2
            if z < 0 or y < 0 or x < 0 or z >= nz or y >= ny or x >= nx or solid[z, y, x] == 0:
                continue
            dz, dy, dx = points[p, 0] - z * edge[0], points[p, 1] - y * edge[1], points[p, 2] - x * edge[2]
            square = dz * dz + dy * dy + dx * dx
            if square < distance[z, y, x]:
                distance[z, y, x], index[z, y, x] = square, p


@njit(types.int64(_POINTS, _VECTOR, _SOLID, _INDEX, _SOLID), **_OPTIONS)
def ridge(points, edge, solid, index, keep):
    """Mark the voxels of the distance ridge in `keep`, and count them.

    A voxel whose neighbours all look at the surface in about its own direction lies on the way from the surface
    to the ridge, and its sphere lies (but for 5 % of a voxel) inside that of the neighbour farther in.
    """
    nz, ny, nx = solid.shape
    count = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if solid[z, y, x] == 0 or index[z, y, x] < 0:
                    continue
                own = index[z, y, x]
                gz, gy, gx = points[own, 0] - z * edge[0], points[own, 1] - y * edge[1], points[own, 2] - x * edge[2]
                length = np.sqrt(gz * gz + gy * gy + gx * gx)
                alone, turned = True, False
                for n in range(27):
                    az, ay, ax = z + n // 9 - 1, y + (n // 3) % 3 - 1, x + n % 3 - 1
                    if n == 13 or az < 0 or ay < 0 or ax < 0 or az >= nz or ay >= ny or ax >= nx:
                        continue
                    other = index[az, ay, ax]
                    if solid[az, ay, ax] == 0 or other < 0:
                        continue
                    alone = False
                    if other == own:
                        continue
                    hz = points[other, 0] - az * edge[0]
                    hy = points[other, 1] - ay * edge[1]
                    hx = points[other, 2] - ax * edge[2]
                    both = length * np.sqrt(hz * hz + hy * hy + hx * hx)
                    if gz * hz + gy * hy + gx * hx < TURN * both:
                        turned = True
                        break
                if turned or alone:
                    keep[z, y, x] = 1
                    count += 1
    return count


@njit(types.void(_POINTS, _VECTOR, _SOLID, _INDEX, _SOLID, _POINTS), **_OPTIONS)
def inscribe(points, edge, solid, index, keep, spheres):
    """The largest sphere around each voxel of the ridge, its centre moved off the grid: (z, y, x, radius).

    The centre climbs away from the nearest of the surface points that it and its neighbours know, by ever
    smaller steps. Without this a plate two voxels thick, whose middle lies between two voxels, would come out
    one voxel thick.
    """
    nz, ny, nx = solid.shape
    near = np.empty(27, dtype=np.int32)
    small = min(edge[0], edge[1], edge[2])
    row = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if keep[z, y, x] == 0:
                    continue
                known = 0
                for n in range(27):
                    az, ay, ax = z + n // 9 - 1, y + (n // 3) % 3 - 1, x + n % 3 - 1
                    if az < 0 or ay < 0 or ax < 0 or az >= nz or ay >= ny or ax >= nx:
                        continue
                    if solid[az, ay, ax] == 1 and index[az, ay, ax] >= 0:
                        near[known] = index[az, ay, ax]
                        known += 1
                pz, py, px = z * edge[0], y * edge[1], x * edge[2]
                step = 0.5 * small
                best = -1.0
                for _ in range(STEPS):
                    square, to = np.inf, near[0]
                    for n in range(known):
                        dz, dy, dx = points[near[n], 0] - pz, points[near[n], 1] - py, points[near[n], 2] - px
                        found = dz * dz + dy * dy + dx * dx
                        if found < square:
                            square, to = found, near[n]
                    if square > best:
                        best = square
                        spheres[row, 0], spheres[row, 1], spheres[row, 2] = pz, py, px
                    away = step / max(np.sqrt(square), 1e-9 * small)
                    pz += away * (pz - points[to, 0])
                    py += away * (py - points[to, 1])
                    px += away * (px - points[to, 2])
                    pz = min(max(pz, (z - REACH) * edge[0]), (z + REACH) * edge[0])
                    py = min(max(py, (y - REACH) * edge[1]), (y + REACH) * edge[1])
                    px = min(max(px, (x - REACH) * edge[2]), (x + REACH) * edge[2])
                    step *= SHRINK
                spheres[row, 3] = np.sqrt(best)
                row += 1


@njit(types.void(_POINTS, _VECTOR, _SOLID, _MAP), **_OPTIONS)
def cover(spheres, edge, solid, diameter):
    """Write into each solid voxel the diameter of the largest sphere that covers its centre.

    The spheres come in descending order, so that a voxel is written once: a pointer in each row leads on to the
    next voxel still free. A sphere that stands out of a larger one near its centre by less than SLACK and
    SHARE is left out: it lives in the roughness of the surface, where the stairs of the grid make ridges of their
    own, which would fill the outermost layer of a thick body with tiny spheres. `owner` remembers around each
    centre the sphere that stands for it. Voxels covered by none keep what they have.
    """
    nz, ny, nx = solid.shape
    free = np.empty((nz, ny, nx + 1), dtype=np.int32)
    owner = np.full((nz, ny, nx), -1, dtype=np.int32)
    small = min(edge[0], edge[1], edge[2])
    for z in range(nz):
        for y in range(ny):
            free[z, y, nx] = nx
            for x in range(nx - 1, -1, -1):
                free[z, y, x] = x if solid[z, y, x] == 1 else x + 1
    for s in range(spheres.shape[0]):
        pz, py, px, radius = spheres[s, 0], spheres[s, 1], spheres[s, 2], spheres[s, 3]
        cz, cy, cx = int(np.rint(pz / edge[0])), int(np.rint(py / edge[1])), int(np.rint(px / edge[2]))
        cz, cy, cx = min(max(cz, 0), nz - 1), min(max(cy, 0), ny - 1), min(max(cx, 0), nx - 1)
        least, holder, last_other = SLACK * small, -1, -1
        for az in range(max(0, cz - 2), min(nz, cz + 3)):
            for ay in range(max(0, cy - 2), min(ny, cy + 3)):
                for ax in range(max(0, cx - 2), min(nx, cx + 3)):
                    other = owner[az, ay, ax]
                    if other < 0 or other == last_other:
                        continue
                    last_other = other
                    dz, dy, dx = spheres[other, 0] - pz, spheres[other, 1] - py, spheres[other, 2] - px
                    out = np.sqrt(dz * dz + dy * dy + dx * dx) + radius - spheres[other, 3]
                    if out < least and out < SHARE * spheres[other, 3]:
                        least, holder = out, other
        if owner[cz, cy, cx] < 0:
            owner[cz, cy, cx] = holder if holder >= 0 else s
        if holder >= 0:
            continue
        for z in range(max(0, int(np.ceil((pz - radius) / edge[0]))),
                       min(nz - 1, int(np.floor((pz + radius) / edge[0]))) + 1):
            across = radius * radius - (z * edge[0] - pz) ** 2
            if across < 0:
                continue
            width = np.sqrt(across)
            for y in range(max(0, int(np.ceil((py - width) / edge[1]))),
                           min(ny - 1, int(np.floor((py + width) / edge[1]))) + 1):
                rest = across - (y * edge[1] - py) ** 2
                if rest < 0:
                    continue
                half = np.sqrt(rest)
                last = min(nx - 1, int(np.floor((px + half) / edge[2])))
                x = max(0, int(np.ceil((px - half) / edge[2])))
                if x > last:
                    continue
                while True:
                    while free[z, y, x] != x:  # follow the pointers, halving the way for those that come after
                        free[z, y, x] = free[z, y, free[z, y, x]]
                        x = free[z, y, x]
                    if x > last:
                        break
                    diameter[z, y, x] = 2 * radius
                    free[z, y, x] = x + 1
                    x += 1


@njit(types.int64(_SOLID, _MAP, _MAP), **_OPTIONS)
def fill(solid, diameter, filled):
    """Give a solid voxel that no sphere covers the mean over its covered neighbours; count those still left."""
    nz, ny, nx = solid.shape
    left = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                filled[z, y, x] = diameter[z, y, x]
                if solid[z, y, x] == 0 or diameter[z, y, x] > 0:
                    continue
                total, count = 0.0, 0
                for n in range(27):
                    az, ay, ax = z + n // 9 - 1, y + (n // 3) % 3 - 1, x + n % 3 - 1
                    if az < 0 or ay < 0 or ax < 0 or az >= nz or ay >= ny or ax >= nx:
                        continue
                    if diameter[az, ay, ax] > 0:
                        total += diameter[az, ay, ax]
                        count += 1
                if count:
                    filled[z, y, x] = total / count
                else:
                    left += 1
    return left
