"""The index in memory of one store: which versions of which images there are, and which of them is served.

One rule: it answers at once and changes nothing on the disk; states come from what is said of an image (``abouts``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pbserv.imaging.about import About
from pbserv.imaging.faults import UnknownImage
from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.manifest import check_image_name
from pbserv.imaging.objects import ImageObject, ImageVersion
from pbserv.imaging.states import VersionState, served


class Catalog:
    """Used from the event loop only. ``damages``: what is not served, and why."""

    def __init__(self, store: str, abouts: Mapping[str, About]) -> None:
        """``abouts``: what is said of every image, as it stands on the disk; it changes under our feet."""
        self.name = store
        self._abouts = abouts
        self.damages: tuple[Damage, ...] = ()
        self._images: dict[str, dict[int, StoredImage]] = {}
        self._broken: dict[tuple[str, int], str] = {}
        self._damaged_names: set[str] = set()
        self._hidden: dict[str, tuple[Damage, dict[int, StoredImage]]] = {}

    @property
    def count(self) -> int:
        """Of all versions."""
        return sum(len(versions) for versions in self._images.values())

    def made_by_jobs(self) -> dict[int, tuple[str, int]]:
        """Job -> image and version that it committed, as the disk tells."""
        every = (image for versions in self._images.values() for image in versions.values())
        return {image.facts.job: (image.name, image.version) for image in every if image.facts.job is not None}

    @property
    def known(self) -> frozenset[tuple[str, int]]:
        """Name and number of every version but of images that are hidden."""
        return frozenset((name, number) for name, versions in self._images.items() for number in versions)

    def hide(self, name: str, reason: str) -> None:
        """Serve nothing of an image although it is there, until :meth:`unhide`; ``damages`` tells why."""
        damage = Damage(name, reason)
        self._hidden[name] = damage, self._images.pop(name, {})
        self.damages += (damage,)
        self._damaged_names.add(name)

    def unhide(self) -> None:
        """Serve everything again that was hidden."""
        for name, (damage, versions) in self._hidden.items():
            self.damages = tuple(other for other in self.damages if other != damage)
            if versions:
                self._images[name] = versions
        self._hidden = {}
        self._damaged_names = {damage.path.partition("/")[0] for damage in self.damages}

    def list(self) -> tuple[StoredImage, ...]:
        """The served version of every image that has one, by name."""
        found = (self._served(name) for name in sorted(self._images))
        return tuple(image for image in found if image is not None)

    def all(self) -> tuple[ImageObject, ...]:
        """Every image with all its versions, by name; also those without any."""
        return tuple(self._object(name) for name in sorted(self.names))

    @property
    def names(self) -> frozenset[str]:
        """Every name that is taken here: by versions, by registration, by damage."""
        return frozenset(self._images.keys() | self._abouts.keys() | self._damaged_names)

    def holds(self, name: str) -> bool:
        """Whether the name is taken here."""
        return name in self._images or name in self._abouts or name in self._damaged_names

    def object(self, name: str) -> ImageObject:
        """An image with all its versions; raises InvalidName or UnknownImage."""
        if not self.holds(check_image_name(name)):
            raise UnknownImage(f"there is no image {name!r}; see: pbserv image list")
        return self._object(name)

    def versions(self, name: str) -> tuple[int, ...]:
        """The versions of an image in whatever state, oldest first; empty when there is none."""
        return tuple(sorted(self._images.get(name, ())))

    def info(self, name: str, version: int | None = None) -> StoredImage:
        """A version of an image, the one that is served when none is given; raises InvalidName or UnknownImage."""
        versions = self._images.get(check_image_name(name), {})
        if not versions and self.holds(name) and name not in self._damaged_names:
            raise UnknownImage(f"image {name} is registered, but has no version yet")
        if not versions:
            raise UnknownImage(f"there is no image {name!r}{self._damage_of(name)}")
        if version is None:
            image = self._served(name)
            if image is None:
                states = ", ".join(f"version {one} is {state.value}" for one, state in self._states(name).items())
                raise UnknownImage(f"no version of image {name} is enabled: {states}{self._broken_of(name)}")
            return image
        if version not in versions:
            raise UnknownImage(f"image {name} has no version {version}, but {', '.join(map(str, sorted(versions)))}")
        return versions[version]

    def _object(self, name: str) -> ImageObject:
        about = self._abouts.get(name, About())
        return ImageObject(
            name=name,
            store=self.name,
            about=about,
            versions=tuple(
                ImageVersion(image, about.version(number), self._broken.get((name, number), ""))
                for number, image in sorted(self._images.get(name, {}).items())
            ),
            damages=tuple(damage for damage in self.damages if damage.path.split("/")[0] == name),
        )

    def _states(self, name: str) -> dict[int, VersionState]:
        """Of the versions whose files are there and whole."""
        about = self._abouts.get(name, About())
        return {number: about.version(number).state for number in sorted(self._images.get(name, ()))
                if (name, number) not in self._broken}  # fmt: skip

    def _served(self, name: str) -> StoredImage | None:
        number = served(self._states(name))
        return None if number is None else self._images[name][number]

    def _damage_of(self, name: str) -> str:
        reasons = [f"{damage.path}: {damage.reason}" for damage in self.damages if damage.path.split("/")[0] == name]
        return f" (damaged: {'; '.join(reasons)})" if name in self._damaged_names else ""

    def _broken_of(self, name: str) -> str:
        found = [f"version {number}: {why}" for (image, number), why in sorted(self._broken.items()) if image == name]
        return f" (damaged: {'; '.join(found)})" if found else ""

    def _newest(self, name: str) -> StoredImage | None:
        """The version that a new one is most like."""
        states = self._states(name)
        good = [number for number, state in states.items() if state is not VersionState.RETIRED]
        return self._images[name][max(good)] if good else None

    def _add(self, image: StoredImage) -> None:
        hidden = self._hidden.get(image.name)
        versions = hidden[1] if hidden is not None else self._images.setdefault(image.name, {})
        versions[image.version] = image

    def _fill(self, images: Iterable[StoredImage], damages: Iterable[Damage]) -> None:
        """What a start found; what a scrub found before stands in ``abouts``."""
        self._images, self._broken, self._hidden = {}, {}, {}
        for image in images:
            self._add(image)
            damage = self._abouts.get(image.name, About()).version(image.version).damage
            if damage:
                self._broken[image.name, image.version] = damage
        self.damages = tuple(damages)
        self._damaged_names = {damage.path.partition("/")[0] for damage in self.damages}

    def _forget(self, name: str, version: int | None) -> None:
        """A version, or with None an image, is not there any more."""
        left = self._images.get(name, {})
        for number in [version] if version is not None else list(left):
            left.pop(number, None)
            self._broken.pop((name, number), None)
        if not left:
            self._images.pop(name, None)
        gone = f"{name}/{version}"
        self.damages = tuple(
            damage for damage in self.damages
            if damage.path != gone and (version is not None or damage.path.split("/")[0] != name)
        )  # fmt: skip
        self._damaged_names = {damage.path.partition("/")[0] for damage in self.damages}
