"""Recover a picture from two blurred, noisy views of it, the blur known and unknown: the script of deconvolution.md.

python deconvolution.py            recover, print what was gained and what one call costs, save the figures
python deconvolution.py --peers    print a table: one call of the objective beside JAX and torch, where installed
python deconvolution.py --quick    the same on a small piece of the picture, to see whether it runs
"""

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

import nbad

Array = np.ndarray[Any, Any]
State = dict[str, Any]
Objective = Callable[[Array], tuple[float, Array]]

SIZE = 15  # of a kernel, in pixels
NOISE = 0.01  # standard deviation; pictures lie between 0 and 1
THREADS = 2


# What the microscope does ---------------------------------------------------------------------------
def gaussian(along: float, across: float, angle: float) -> Array:
    """Return a kernel of unit sum, its widths in pixels."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    s, t = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kernel = np.exp(-((s / along) ** 2 + (t / across) ** 2) / 2)
    return kernel / np.sum(kernel)


def observe(picture: Array) -> tuple[Array, Array]:
    """Return the true kernels, shape (2, 15, 15), and the two views that they give."""
    kernels = np.stack([gaussian(3.0, 0.7, np.pi / 5), gaussian(3.0, 0.7, np.pi / 5 + np.pi / 2)])
    views = nbad.convolve(picture, kernels, mode="valid", axes=(1, 2))
    return kernels, views + NOISE * np.random.default_rng(0).standard_normal(views.shape)


# The loss -------------------------------------------------------------------------------------------
@nbad.compile
def loss(image: Any, kernels: Any, views: Any, smoothing: Any, spread: Any) -> Any:
    """Return what is to be small: misfit, total variation of the image, sharpness of the kernels."""
    kernels = kernels / np.sum(kernels, axis=(1, 2), keepdims=True)
    misfit = nbad.convolve(image, kernels, mode="valid", axes=(1, 2)) - views
    down = image[1:, :-1] - image[:-1, :-1]
    across = image[:-1, 1:] - image[:-1, :-1]
    variation = np.sum(np.sqrt(down**2 + across**2 + 1e-4))
    return np.sum(misfit**2) / 2 + smoothing * variation + spread * np.sum(kernels**2)


# Recover --------------------------------------------------------------------------------------------
def begin(views: Array) -> State:
    """Return the arguments of the loss: the views' mean, at full size, and round kernels."""
    image = np.pad(np.mean(views, axis=0), SIZE // 2, mode="edge")
    kernels = np.stack([gaussian(1.5, 1.5, 0.0)] * len(views))
    return {
        "image": image,
        "kernels": kernels,
        "views": views,
        "smoothing": 2e-3,
        "spread": 4e-4 * image.size,
    }


def recover(wrt: str, state: State, iterations: int) -> State:
    """Minimise the loss in one argument; all others stay."""
    value_and_grad = nbad.value_and_grad(loss, wrt=wrt)
    start, unravel = nbad.ravel(state[wrt])

    def objective(vector: Array) -> tuple[float, Array]:
        value, gradient = value_and_grad(**state | {wrt: unravel(vector)})
        return value, nbad.ravel(gradient)[0]

    bounds = [(0, None)] * start.size if wrt == "kernels" else None
    options = {"maxiter": iterations}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return state | {wrt: unravel(found.x)}


def alternate(state: State, rounds: int) -> State:
    """Minimise the loss in the image and in the kernels, in turn."""
    for _ in range(rounds):
        state = recover("image", state, iterations=10)
        state = recover("kernels", state, iterations=10)
    return recover("image", state, iterations=40)


# What was gained, and what it cost ------------------------------------------------------------------
def psnr(image: Array, picture: Array) -> float:
    """Return the peak signal-to-noise ratio in dB, of what all views show."""
    seen = np.s_[SIZE:-SIZE, SIZE:-SIZE]
    return float(-10 * np.log10(np.mean((image[seen] - picture[seen]) ** 2)))


def kernel_error(kernels: Array, true: Array) -> float:
    """Return the distance of kernels from the true ones, relative to these."""
    kernels = kernels / np.sum(kernels, axis=(1, 2), keepdims=True)
    return float(np.linalg.norm(kernels - true) / np.linalg.norm(true))


def one_call(wrt: str | tuple[str, ...], state: State) -> nbad.Report:
    """Return the account of a call in the middle of a minimisation: only what is asked for has changed."""
    value_and_grad = nbad.value_and_grad(loss, wrt=wrt)
    for step in range(4):
        moved = {name: state[name] * (1 + 1e-3 * step) for name in ((wrt,) if isinstance(wrt, str) else wrt)}
        with nbad.report() as account:
            value_and_grad(**state | moved)
    return account


def solve(picture: Array, iterations: int = 60, rounds: int = 4) -> dict[str, State]:
    """Return the states by name: at the start, and recovered with true, guessed and found kernels."""
    true, views = observe(picture)
    start = begin(views)
    return {
        "mean of the views": start,
        "true kernels": recover("image", start | {"kernels": true}, iterations),
        "guessed kernels": recover("image", start, iterations),
        "alternating": alternate(start, rounds),
    }


def tell(picture: Array, states: dict[str, State]) -> None:
    """Print what was gained, and what one call costs."""
    true = observe(picture)[0]
    for name, state in states.items():
        image, kernels = state["image"], state["kernels"]
        print(f"{name:18} {psnr(image, picture):5.1f} dB, kernels off by {kernel_error(kernels, true):.2f}")
    for wrt in ("image", "kernels", ("image", "kernels")):
        account = one_call(wrt, states["mean of the views"])
        print(f"asked for {wrt}: {account.ffts} FFTs, {account.nodes_run} nodes run")


def draw(picture: Array, states: dict[str, State], folder: Path) -> None:
    """Save the two figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    true, views = observe(picture)
    side = min(picture.shape[0] // 2, 200)
    part = np.s_[side // 3 : side // 3 + side, side : 2 * side]
    around = [np.pad(view, SIZE // 2, mode="edge") for view in views]
    panels = {"picture": picture, "view 1": around[0], "view 2": around[1]}
    panels |= {name: states[name]["image"] for name in ("true kernels", "guessed kernels", "alternating")}
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
    for axis, (name, image) in zip(axes.flat, panels.items(), strict=True):
        axis.imshow(image[part], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(name if image is picture else f"{name}, {psnr(image, picture):.1f} dB")
        axis.set_axis_off()
    figure.savefig(folder / "deconvolution.png", dpi=64)

    found = {name: states[name]["kernels"] for name in ("guessed kernels", "alternating")} | {
        "true kernels": true
    }
    figure, axes = plt.subplots(2, 3, figsize=(6, 4.3), layout="constrained")
    for column, (name, kernels) in zip(axes.T, found.items(), strict=True):
        for axis, kernel in zip(column, kernels, strict=True):
            axis.imshow(kernel / kernel.sum(), cmap="magma", vmin=0, vmax=true.max(), interpolation="nearest")
            axis.set_axis_off()
        column[0].set_title(name)
    figure.savefig(folder / "kernels.png", dpi=72)


# Beside JAX and torch -------------------------------------------------------------------------------
def written(xp: Any, model: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return the loss for another library; `model` blurs an image by kernels of unit sum."""

    def loss(image: Any, kernels: Any, views: Any, smoothing: float, spread: float) -> Any:
        kernels = kernels / kernels.sum((1, 2), keepdims=True)
        misfit = model(image, kernels) - views
        down = image[1:, :-1] - image[:-1, :-1]
        across = image[:-1, 1:] - image[:-1, :-1]
        variation = xp.sqrt(down**2 + across**2 + 1e-4).sum()
        return (misfit**2).sum() / 2 + smoothing * variation + spread * (kernels**2).sum()

    return loss


def by_rfft(fft: Any) -> Callable[[Any, Any], Any]:
    """Return the model by real transforms: cyclic, and cut to what no border reaches."""

    def model(image: Any, kernels: Any) -> Any:
        spectrum = fft.rfft2(image) * fft.rfft2(kernels, image.shape)
        return fft.irfft2(spectrum, image.shape)[:, SIZE - 1 :, SIZE - 1 :]

    return model


def nbad_objectives(wrt: str, state: State) -> dict[str, Objective]:
    """Return the objective of `recover`, and the same without compilation."""
    found: dict[str, Objective] = {}
    for name, function in (("nbad, compiled", loss), ("nbad, not compiled", loss.__wrapped__)):
        value_and_grad = nbad.value_and_grad(function, wrt=wrt)

        def objective(x: Array, call: Any = value_and_grad) -> tuple[float, Array]:
            return call(**state | {wrt: x})

        found[name] = objective
    return found


def jax_objectives(wrt: str, state: State) -> dict[str, Objective]:
    """Return the objectives of JAX: arrays of NumPy come in and go out, without copies on a CPU."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.scipy.signal

    arrays = {name: jax.numpy.asarray(x) for name, x in state.items()}
    others = [name for name in state if name != wrt]

    def convolved(image: Any, kernels: Any) -> Any:
        return jax.vmap(lambda kernel: jax.scipy.signal.fftconvolve(image, kernel, mode="valid"))(kernels)

    fft, shape = jax.numpy.fft, state["image"].shape
    unit = arrays["kernels"] / arrays["kernels"].sum((1, 2), keepdims=True)
    kept = fft.rfft2(unit, shape) if wrt == "image" else fft.rfft2(arrays["image"])

    def given(image: Any, kernels: Any) -> Any:
        spectrum = fft.rfft2(image) * kept if wrt == "image" else kept * fft.rfft2(kernels, shape)
        return fft.irfft2(spectrum, shape)[:, SIZE - 1 :, SIZE - 1 :]

    models = {"rfft by hand": by_rfft(fft), "rfft by hand, spectrum kept": given, "fftconvolve": convolved}
    found: dict[str, Objective] = {}
    for name, model in models.items():
        written_loss = written(jax.numpy, model)

        def of_one(x: Any, rest: Any, f: Any = written_loss) -> Any:
            return f(**{wrt: x}, **rest)

        compiled = jax.jit(jax.value_and_grad(of_one))

        def objective(x: Array, call: Any = compiled) -> tuple[float, Array]:
            value, gradient = call(x, {name: arrays[name] for name in others})
            return float(value), np.asarray(gradient)

        found[f"JAX jit, {name}"] = objective
    return found


def torch_objectives(wrt: str, state: State) -> dict[str, Objective]:
    """Return the objectives of torch; its arrays share memory with NumPy's."""
    import torch

    torch.set_num_threads(THREADS)
    arrays = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in state.items()}

    def convolved(image: Any, kernels: Any) -> Any:
        return torch.nn.functional.conv2d(image[None, None], kernels.flip((1, 2))[:, None])[0]

    found: dict[str, Objective] = {}
    for name, model in {"rfft by hand": by_rfft(torch.fft), "conv2d": convolved}.items():
        written_loss = written(torch, model)

        def objective(x: Array, f: Any = written_loss) -> tuple[float, Array]:
            leaf = torch.from_numpy(x).requires_grad_()
            value = f(**arrays | {wrt: leaf})
            value.backward()
            return value.item(), leaf.grad.numpy()

        found[f"torch, {name}"] = objective
    return found


def timed(
    objectives: dict[str, Objective], points: Sequence[Array], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Return by name the median and the least milliseconds of a call, and how far off the gradient is, relative."""
    expected = next(iter(objectives.values()))(points[0])[1]
    seconds: dict[str, list[float]] = {name: [] for name in objectives}
    differences = {}
    for name, objective in objectives.items():
        difference = np.max(np.abs(objective(points[0])[1] - expected))
        differences[name] = float(difference / np.max(np.abs(expected)))
        for point in points:  # compilation, recording and planning
            objective(point)
    for k in range(rounds):
        for name, objective in objectives.items():  # in turn: what else the machine does meets all of them
            time.sleep(0.01)  # threads of the one before come to rest
            objective(points[k % len(points)])
            began = time.perf_counter()
            objective(points[(k + 1) % len(points)])
            seconds[name].append(1e3 * (time.perf_counter() - began))
    return {n: (statistics.median(seconds[n]), min(seconds[n]), differences[n]) for n in objectives}


def compare(state: State, rounds: int) -> int:
    """Print the table of times; return 1 if gradients differ."""
    nbad.set_threads(THREADS)
    columns = []
    for wrt in ("image", "kernels"):
        objectives = nbad_objectives(wrt, state)
        for library, make in (("jax", jax_objectives), ("torch", torch_objectives)):
            if importlib.util.find_spec(library):
                objectives |= make(wrt, state)
        points = [state[wrt] * (1 + 1e-3 * step) for step in range(6)]
        columns.append(timed(objectives, points, rounds))
    print("| value and gradient, ms | image: median | least | / nbad | kernels: median | least | / nbad |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    bases = [next(iter(column.values())) for column in columns]
    for name in columns[0]:
        cells = [name]
        for column, base in zip(columns, bases, strict=True):
            median, least, _ = column[name]
            cells += [f"{median:.1f}", f"{least:.1f}", f"{median / base[0]:.1f}, {least / base[1]:.1f}"]
        print("| " + " | ".join(cells) + " |")
    packages = [p for p in ("nbad", "numpy", "scipy", "jax", "torch") if importlib.util.find_spec(p)]
    versions = ", ".join(f"{p} {nbad.__version__ if p == 'nbad' else version(p)}" for p in packages)
    size = "x".join(map(str, state["image"].shape))
    worst = max(difference for column in columns for *_, difference in column.values())
    print(
        f"\n{size} float64, {THREADS} threads, {rounds} interleaved rounds; ratios of medians and of least times; ",
        end="",
    )
    print(f"gradients agree to {worst:.0e}; {platform.machine()}, {versions}.")
    return int(worst > 1e-9)


def main(words: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", action="store_true", help="print the table of times instead")
    parser.add_argument("--quick", action="store_true", help="a piece of the picture, few iterations")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of the table (default %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the figures go (default: here)")
    options = parser.parse_args(words)
    if options.peers and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # XLA's threads

    from skimage import data

    picture = data.camera() / 255.0
    if options.quick:
        picture = np.ascontiguousarray(picture[60:188, 160:288])
    if options.peers:
        true, views = observe(picture)
        return compare(begin(views) | {"kernels": true}, 3 if options.quick else options.rounds)
    states = solve(picture, 30, 2) if options.quick else solve(picture)
    tell(picture, states)
    draw(picture, states, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
