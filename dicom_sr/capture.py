"""The heatmap as secondary capture: true colour, on the source's geometry, RLE Lossless (ADR 0016)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_sr import codes, geometry, preview, wording
from dicom_sr.evidence import Pictures, key_slices
from dicom_sr.finish import finish
from dicom_sr.identity import object_uid, series_uid
from dicom_sr.request import ResultRequest
from inference.result import Heatmap
from inference.volume import SliceSource, Volume

MULTI_FRAME_TRUE_COLOR = "1.2.840.10008.5.1.4.1.1.7.4"
SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.7"
WHOLE_SERIES_SLICES = 64
NEIGHBOURS = 2


def build_captures(request: ResultRequest, volume: Volume, heatmap: Heatmap) -> tuple[Pictures, ...]:
    """Return the heatmap objects for the request's destination: one multi-frame, or one per key slice."""
    if request.profile.heatmap == "multi-frame":
        return (_multi_frame(request, volume, heatmap),)
    finding = wording.main_finding(request)
    chosen = sorted(key_slices(finding)) if finding else []
    return tuple(_single_frame(request, volume, heatmap, index, z) for index, z in enumerate(chosen))


def shown_slices(request: ResultRequest, volume: Volume) -> tuple[int, ...]:
    """Return the slices of a multi-frame heatmap: all of them up to 64, else the key slices with two on each side."""
    count = volume.geometry.shape_zyx[0]
    finding = wording.main_finding(request)
    keys = key_slices(finding) if finding else ()
    if count <= WHOLE_SERIES_SLICES or not keys:
        return tuple(range(0, count, -(-count // WHOLE_SERIES_SLICES)))
    near = {z + offset for z in keys for offset in range(-NEIGHBOURS, NEIGHBOURS + 1)}
    return tuple(sorted(near & set(range(count))))


def _multi_frame(request: ResultRequest, volume: Volume, heatmap: Heatmap) -> Pictures:
    shown = _in_source_order(request, volume, shown_slices(request, volume))
    frames = np.stack([_frame(request, volume, heatmap, z) for z in shown])
    dataset = _capture(request, volume, MULTI_FRAME_TRUE_COLOR, 0, shown)
    place = volume.geometry
    dataset.NumberOfFrames = len(shown)
    dataset.FrameIncrementPointer = 0x00182005  # Slice Location Vector
    dataset.SliceLocationVector = [geometry.ds(place.positions_mm[z]) for z in shown]
    dataset.SharedFunctionalGroupsSequence = [geometry.shared_groups(place)]
    dataset.PerFrameFunctionalGroupsSequence = [geometry.frame_groups(place, z) for z in shown]
    _set_pixels(dataset, frames)
    return Pictures(dataset, {z: frame for frame, z in enumerate(shown, 1)})


def _in_source_order(request: ResultRequest, volume: Volume, shown: tuple[int, ...]) -> tuple[int, ...]:
    """Return the slices in the order a reader scrolls the source in: by its Instance Number."""
    given = {source.SOPInstanceUID: str(source.get("InstanceNumber") or "") for source in request.sources}

    def place(z: int) -> tuple[int, int, int]:
        slice_source = volume.geometry.slices[z]
        number = given.get(slice_source.sop_instance_uid, "")
        return (int(number) if number.isdigit() else 0), slice_source.frame_number or 0, z

    return tuple(sorted(shown, key=place))


def _single_frame(request: ResultRequest, volume: Volume, heatmap: Heatmap, index: int, z: int) -> Pictures:
    dataset = _capture(request, volume, SINGLE_FRAME, index, (z,))
    dataset.ImageOrientationPatient = geometry.orientation(volume.geometry)
    dataset.ImagePositionPatient = geometry.position(volume.geometry, z)
    dataset.SliceLocation = geometry.ds(volume.geometry.positions_mm[z])
    _set_pixels(dataset, _frame(request, volume, heatmap, z)[None])
    return Pictures(dataset, None, z)


def _capture(request: ResultRequest, volume: Volume, sop_class_uid: str, index: int, shown: tuple[int, ...]) -> Dataset:
    """Return a capture without its pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = object_uid(request, "heatmap", sop_class_uid, index)
    dataset.SeriesInstanceUID = series_uid(request, "heatmap")
    dataset.InstanceNumber = index + 1
    dataset.Modality = "OT"
    dataset.BodyPartExamined = "HEAD"
    dataset.ConversionType = "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AI", "HEATMAP"]
    dataset.PatientOrientation = ""
    dataset.BurnedInAnnotation = "YES"  # our text, never the patient's
    dataset.RecognizableVisualFeatures = "NO"
    dataset.LossyImageCompression = "00"
    source = request.sources[0]
    dataset.FrameOfReferenceUID = geometry.frame_of_reference(volume.geometry, source.SeriesInstanceUID)
    dataset.PositionReferenceIndicator = ""
    dataset.PixelSpacing = geometry.pixel_spacing(volume.geometry)
    centre, width = preview.window_of(volume)
    dataset.DerivationDescription = (
        f"Heatmap of {request.model.name} {request.model.version} blended over the source (window centre "
        f"{centre:.4g}, width {width:.4g}); dark red to yellow: evidence {preview.HEAT_FLOOR} to 1, opacity to "
        f"{preview.HEAT_OPACITY}. Not a segmentation."
    )
    dataset.SourceImageSequence = _source_items([volume.geometry.slices[z] for z in shown])
    finish(
        dataset,
        role="heatmap",
        source=source,
        model=request.model,
        at=request.analysed_at,
        description=wording.companion_description(request, "heatmap"),
        series_number=wording.series_number(request),
    )
    return dataset


def _source_items(sources: list[SliceSource]) -> list[Dataset]:
    """Return Source Image items, frames of one multi-frame object together."""
    items: dict[str, Dataset] = {}
    for source in sources:
        item = items.setdefault(source.sop_instance_uid, Dataset())
        item.ReferencedSOPClassUID = source.sop_class_uid
        item.ReferencedSOPInstanceUID = source.sop_instance_uid
        if source.frame_number is not None:
            known = item.get("ReferencedFrameNumber")
            numbers = [] if known is None else [known] if isinstance(known, int) else list(known)
            item.ReferencedFrameNumber = [*numbers, source.frame_number]
        item.PurposeOfReferenceCodeSequence = [codes.code_item(codes.SOURCE_IMAGE)]
    return list(items.values())


def _set_pixels(dataset: Dataset, frames: npt.NDArray[np.uint8]) -> None:
    """Write RGB frames ``[n, y, x, 3]``, losslessly compressed."""
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    pixels = frames if len(frames) > 1 else frames[0]
    dataset.compress(RLELossless, pixels, encoding_plugin="pylibjpeg", generate_instance_uid=False)


def _frame(request: ResultRequest, volume: Volume, heatmap: Heatmap, z: int) -> npt.NDArray[np.uint8]:
    """Return one frame ``[y, x, 3]`` with its text."""
    image = preview.render_slice(volume, heatmap, z, overlay=True)
    finding = wording.main_finding(request)
    numbers = []
    if finding is not None and finding.probability is not None:
        numbers.append(f"p {finding.probability:.0%}")
    if finding is not None and finding.slices:
        numbers.append(f"slice {finding.slices[z].probability:.0%}")
    model = f"{request.model.name} {request.model.version}"
    _write(ImageDraw.Draw(image), image.size, [wording.BURNED_IN, "  ".join([model, *numbers])])
    return np.asarray(image)


def _write(draw: ImageDraw.ImageDraw, size: tuple[int, int], lines: list[str]) -> None:
    """Write small text at the bottom edge, centred: viewers keep their own text in the corners."""
    columns, rows = size
    points = max(9, min(16, rows // 42))
    font = ImageFont.load_default(points)
    fitting = [part for line in lines for part in _wrapped(draw, line, font, 0.96 * columns)]
    y = rows - len(fitting) * (points + 3) - 2
    for line in fitting:
        x = (columns - draw.textlength(line, font)) / 2
        draw.text((x, y), line, font=font, fill=(255, 255, 140), stroke_width=1, stroke_fill=(0, 0, 0))
        y += points + 3


def _wrapped(
    draw: ImageDraw.ImageDraw, line: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float
) -> list[str]:
    """Return a line broken at spaces so that each part fits."""
    parts: list[str] = []
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts else word
        if parts and draw.textlength(longer, font) <= width:
            parts[-1] = longer
        else:
            parts.append(word)
    return parts
