"""Models of the Hugging Face hub: ``hf:org/repo:Q4_K_M`` and ``hf:org/repo/file``, by huggingface_hub."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyllama.errors import DownloadError, UnsupportedError

if TYPE_CHECKING:
    from cyllama.models._download import Progress

__all__ = [
    "HUB_PREFIX",
    "HubName",
    "hub_cached",
    "hub_file",
    "hub_models",
    "hub_name_of",
    "hub_projector",
    "is_repository",
]

HUB_PREFIX = "hf:"
FORM = "hf:organisation/repository, with :QUANTIZATION or /file"
PART = r"[A-Za-z0-9][\w.-]*"
REPOSITORY = re.compile(rf"{PART}/{PART}(?::[\w.-]+)?")
SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
QUANTIZATION = re.compile(r"(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|FP16|F32|MXFP4\w*)", re.IGNORECASE)
PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "MXFP4", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16")
PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
# Of a model in the diffusers layout, what the engine reads; the first two are needed.
UNET = "unet/diffusion_pytorch_model.safetensors"
LAYOUT = ("model_index.json", UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
          "text_encoder_2/model.safetensors")  # fmt: skip
MAX_FILES_SHOWN = 8
SECONDS = 20.0  # limit of the request for the list of files


@dataclass(frozen=True)
class HubName:
    """The parts of a name; `file` is empty if the name has none, so is `quantization`."""

    name: str
    repository: str
    revision: str | None
    file: str
    quantization: str


def is_repository(text: str) -> bool:
    """Return whether a text has the form ``organisation/repository`` or ``organisation/repository:QUANTIZATION``."""
    return REPOSITORY.fullmatch(text) is not None


def hub_name_of(name: str) -> HubName:
    """Return the parts of a name with ``hf:``.

    Raises
    ------
    ValueError
    """
    parts = name.removeprefix(HUB_PREFIX).split("/")
    file = "/".join(parts[2:])
    if len(parts) < 2 or not all(parts) or ".." in parts:
        raise ValueError(f"name is {name!r}, expected {FORM}")
    last, colon, quantization = parts[1].partition(":")
    repository, _, revision = last.partition("@")
    is_file = not file and repository.casefold().endswith((".gguf", *WEIGHTS))
    if bool(colon) != bool(quantization) or (file and quantization) or not repository or is_file:
        raise ValueError(f"name is {name!r}, expected {FORM}")
    return HubName(name, f"{parts[0]}/{repository}", revision or None, file, quantization)


def hub_file(name: str, progress: Progress | None = None) -> Path:
    """Return the path of a model of the hub; download what is missing of it, with all parts of a split model.

    Parameters
    ----------
    name : str
    progress : callable, optional
        Called with (bytes done, bytes in total) of each file.

    Returns
    -------
    pathlib.Path
        The file, the first one of a split model, or the folder of a model in the diffusers layout.

    Raises
    ------
    ValueError
        The name is wrong, or the repository has several models of this name.
    DownloadError, UnsupportedError
    """
    parts = hub_name_of(name)
    listing = _listing(parts)
    is_layout = "model_index.json" in listing.files and not any(file.endswith(".gguf") for file in listing.files)
    if not parts.file and is_layout:
        return listing.folder()
    try:
        chosen = _with_parts(parts.file or _model_of(parts, listing.files), listing.files)
    except (ValueError, DownloadError):
        if listing.why_local is None:
            raise
        raise _explained(listing.why_local, parts) from listing.why_local
    found = [listing.get(file, progress) for file in chosen]
    return found[0]


def hub_projector(name: str, progress: Progress | None = None) -> Path | None:
    """Return the projector of a multimodal model; None if there is none, or if the name is that of one file."""
    parts = hub_name_of(name)
    if parts.file:
        return None
    listing = _listing(parts)
    found = [file for file in listing.files if _is_projector(file)]
    return listing.get(_preferred(found, PROJECTORS), progress) if found else None


def hub_cached(name: str) -> Path | None:
    """Return the path of a model that was downloaded; None if it was not, or not completely."""
    parts = hub_name_of(name)
    try:
        hub = _library(name)
    except UnsupportedError:
        return None
    files = _local_files(parts)
    try:
        chosen = _with_parts(parts.file or _model_of(parts, files), files)
    except (ValueError, DownloadError):
        return None
    found = [hub.try_to_load_from_cache(parts.repository, file, revision=parts.revision) for file in chosen]
    return Path(found[0]) if all(isinstance(path, str) for path in found) else None


def hub_models() -> list[tuple[str, int, Path]]:
    """Return the name, the size and the path of each file of weights in the Hugging Face cache."""
    try:
        cache = _cache_folder()
    except ImportError:
        return []
    found: dict[str, tuple[str, int, Path]] = {}
    for path in sorted(cache.glob("models--*/snapshots/*/**/*")):
        inside = path.relative_to(cache).parts
        if path.suffix in (".gguf", *WEIGHTS) and path.is_file() and len(inside[0].split("--")) == 3:
            name = f"{HUB_PREFIX}{inside[0].removeprefix('models--').replace('--', '/')}/{'/'.join(inside[3:])}"
            found.setdefault(name, (name, path.stat().st_size, path))
    return list(found.values())


@dataclass(frozen=True)
class _Listing:
    """The files of a repository, or of what was downloaded of it if the hub cannot be reached."""

    hub: Any
    parts: HubName
    files: list[str]
    why_local: Exception | None = None

    def get(self, file: str, progress: Progress | None) -> Path:
        """Return the path of a file; download it if it is missing."""
        if self.why_local is not None:
            found = self.hub.try_to_load_from_cache(self.parts.repository, file, revision=self.parts.revision)
            if not isinstance(found, str):
                raise _explained(self.why_local, self.parts) from self.why_local
            return Path(found)
        if file not in self.files:
            hint = _nearest_file(file, self.files)
            what = f"{self.parts.repository} has no file {file}; {hint}"
            raise DownloadError(f"cannot get {self.parts.name} from the Hugging Face hub: {what}")
        shows = progress is not None and "tqdm_class" in inspect.signature(self.hub.hf_hub_download).parameters
        more: dict[str, Any] = {"tqdm_class": _bar(progress)} if progress is not None and shows else {}
        try:
            return Path(self.hub.hf_hub_download(self.parts.repository, file, revision=self.parts.revision, **more))
        except Exception as error:  # of huggingface_hub, and of the HTTP client that it uses
            raise _explained(error, self.parts) from error

    def folder(self) -> Path:
        """Return the folder of a model in the diffusers layout."""
        if UNET not in self.files:
            raise DownloadError(
                f"{self.parts.repository} has a model in the diffusers layout without {UNET}, expected a model in one "
                "file, such as a GGUF file; then name its other components"
            )
        found = [self.get(file, None) for file in LAYOUT if file in self.files]
        return found[0].parent


def _listing(parts: HubName) -> _Listing:
    """Return the files of a repository.

    Raises
    ------
    DownloadError
        There is no such repository, or the hub cannot be reached and nothing was downloaded before.
    """
    hub = _library(parts.name)
    try:
        info = hub.HfApi().model_info(parts.repository, revision=parts.revision, timeout=SECONDS)
    except Exception as error:  # of huggingface_hub, and of the HTTP client that it uses
        files = _local_files(parts) if _is_unreachable(error) else []
        if files:
            return _Listing(hub, parts, files, error)
        raise _explained(error, parts) from error
    return _Listing(hub, parts, sorted(sibling.rfilename for sibling in info.siblings or []))


def _library(name: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UnsupportedError(f"{name} needs huggingface_hub: pip install huggingface_hub") from error


def _cache_folder() -> Path:
    return Path(importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE)


def _local_files(parts: HubName) -> list[str]:
    """Return the files of a repository in the cache."""
    repository = _cache_folder() / f"models--{parts.repository.replace('/', '--')}"
    revision = parts.revision or "main"
    with contextlib.suppress(OSError):  # it is a commit, or nothing was downloaded
        revision = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    folder = repository / "snapshots" / revision
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_projector(file: str) -> bool:
    return file.endswith(".gguf") and "mmproj" in os.path.basename(file).casefold()


def _quantization(file: str) -> str:
    """Return the quantization in a file's name, or in that of its folder."""
    for part in reversed(re.sub(r"\.gguf$", "", file).split("/")):
        for found in reversed(list(QUANTIZATION.finditer(part))):
            start, end = found.start(), found.end()
            if part[start - 1 : start] in ("", "-", ".", "_") and part[end : end + 1] in ("", "-", "."):
                return found[0].upper()
    return ""


def _preferred(files: Sequence[str], order: Sequence[str]) -> str:
    """Return the file with the first quantization of a list; else the first file."""
    ranks = {quantization: i for i, quantization in enumerate(order)}
    return min(files, key=lambda file: (ranks.get(_quantization(file), len(order)), len(file), file))


def _model_of(parts: HubName, files: list[str]) -> str:
    """Return the model of a repository.

    Raises
    ------
    ValueError
        None or several have the quantization.
    DownloadError
        There is no model that an engine can load.
    """
    models = [file for file in files if file.endswith(".gguf") and not _is_projector(file) and "imatrix" not in file]
    models = [file for file in models if not (part := SPLIT.search(file)) or part[1] == "00001"]
    if not models:
        return _other_weights(parts, files)
    wanted = parts.quantization.upper()
    if wanted in ("", "LATEST"):
        return _preferred(models, PREFERRED)
    found = [file for file in models if _quantization(file) == wanted]
    if not found:
        known = sorted({_quantization(file) for file in models} - {""}) or [os.path.basename(file) for file in models]
        raise ValueError(f"{parts.repository} has no model {parts.quantization}, expected one of {', '.join(known)}")
    if len(found) > 1:
        raise ValueError(
            f"{parts.repository} has {len(found)} models {parts.quantization}: {_shown(found)}; "
            f"name one: hf:{parts.repository}/{found[0]}"
        )
    return found[0]


def _other_weights(parts: HubName, files: list[str]) -> str:
    """Return the only file of weights in the root of a repository."""
    found = [file for file in files if "/" not in file and file.endswith(WEIGHTS)]
    if "config.json" in files:
        raise DownloadError(
            f"{parts.repository} has the weights of transformers and no GGUF file; take a repository with GGUF files "
            f"({parts.repository.rpartition('/')[2]}-GGUF), or convert it with llama.cpp's convert_hf_to_gguf.py"
        )
    if len(found) != 1 or parts.quantization:
        what = "no file of a model" if not found else f"{len(found)} models"
        raise DownloadError(
            f"{parts.repository} has {what}: {_shown(found or files)}; name one: hf:{parts.repository}/FILE"
        )
    return found[0]


def _shown(files: Sequence[str]) -> str:
    more = f", and {len(files) - MAX_FILES_SHOWN} more" if len(files) > MAX_FILES_SHOWN else ""
    return ", ".join(files[:MAX_FILES_SHOWN]) + more


def _with_parts(file: str, files: Sequence[str]) -> list[str]:
    """Return a file, or all parts of a split model in order."""
    part = SPLIT.search(file)
    if part is None:
        return [file]
    wanted = [f"{file[: part.start()]}-{i:05}-of-{part[2]}.gguf" for i in range(1, int(part[2]) + 1)]
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise DownloadError(f"{file} is a part of {len(wanted)} files, and {missing[0]} is missing")
    return wanted


def _bar(progress: Progress) -> type:
    """Return a class in tqdm's place that calls `progress`."""
    tqdm: Any = importlib.import_module("tqdm").tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            self.done, self.whole = int(options.get("initial") or 0), int(options.get("total") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress(self.done, self.whole)

    return Bar


def _nearest_file(file: str, files: Sequence[str]) -> str:
    """Return what to do about a file that a repository does not have."""
    known = [name for name in files if name.endswith((".gguf", *WEIGHTS))]
    near = difflib.get_close_matches(file, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"expected one of {_shown(known)}" if known else "it has no models"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_unreachable(error: Exception) -> bool:
    """Return whether the hub did not answer, so that files in the cache are the best there is."""
    response = getattr(error, "response", None)
    return response is None or int(getattr(response, "status_code", 0)) >= 500


def _explained(error: Exception, parts: HubName) -> Exception:
    """Return the error with a reason and a next step; a cancelled download stays what it is."""
    if any(isinstance(cause, MemoryError) or type(cause).__module__.startswith("cyllama") for cause in _causes(error)):
        return error
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    text = " ".join(str(error).split()) or type(error).__name__
    home = "set HF_HOME to a folder with space"
    if "GatedRepoError" in kinds:
        why = f"{parts.repository} asks for an agreement; accept it on its page, then set HF_TOKEN"
    elif "RepositoryNotFoundError" in kinds:
        why = f"there is no repository {parts.repository}, or it is private; check the name, or set HF_TOKEN"
    elif "RevisionNotFoundError" in kinds:
        why = f"{parts.repository} has no revision {parts.revision}; leave out @{parts.revision}"
    elif "HFValidationError" in kinds:
        why = f"{text.split('.')[0]}; expected {FORM}"
    elif "OfflineModeIsEnabled" in kinds:
        why = "HF_HUB_OFFLINE is set and the model was not downloaded before; unset it, or give a local file"
    elif kinds & {"PermissionError"} or (isinstance(error, OSError) and error.errno in (13, 28, 30, 122)):
        why = f"{text}; {home}"
    elif _is_unreachable(error):
        why = "it cannot be reached, and the model was not downloaded before; check the network, or give a local file"
    else:
        why = text
    return DownloadError(f"cannot get {parts.name} from the Hugging Face hub: {why}")
