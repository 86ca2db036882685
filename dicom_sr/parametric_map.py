"""The heatmap as a Parametric Map: the same array as the capture, as numbers (IHE AIR's conformant heatmap)."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from highdicom import pm
from pydicom.dataset import Dataset

from dicom_sr import codes, geometry, wording
from dicom_sr.finish import MANUFACTURER, finish
from dicom_sr.identity import object_uid, series_uid, uid_of
from dicom_sr.request import ResultRequest
from dicom_sr.sources import references
from inference.result import Heatmap
from inference.volume import Geometry

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


def build_parametric_map(request: ResultRequest, heatmap: Heatmap) -> Dataset:
    """Return the heatmap's values, 0..1 float32, on the source's geometry."""
    place = heatmap.geometry
    images = _placed_sources(request, place)
    mapping = pm.RealWorldValueMapping(
        lut_label="1",
        lut_explanation="Evidence, 0 to 1",
        unit=codes.NO_UNITS,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.ACTIVATION,
    )
    coordinate = hd.CoordinateSystemNames.PATIENT
    dataset = pm.ParametricMap(
        source_images=images,
        pixel_array=np.ascontiguousarray(heatmap.values),
        series_instance_uid=series_uid(request, "parametric-map"),
        series_number=wording.series_number(request),
        sop_instance_uid=object_uid(request, "parametric-map", PARAMETRIC_MAP),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=request.model.name,
        software_versions=request.model.version,
        device_serial_number=request.model.weights_sha256[:16],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="HEATMAP",
        content_description=wording.BURNED_IN,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(part) for part in geometry.pixel_spacing(place)],
            slice_thickness=place.spacing_zyx_mm[0],
        ),
        plane_orientation=hd.PlaneOrientationSequence(
            coordinate, [float(part) for part in geometry.orientation(place)]
        ),
        plane_positions=[
            hd.PlanePositionSequence(coordinate, [float(part) for part in geometry.position(place, z)])
            for z in range(place.shape_zyx[0])
        ],
    )
    dataset.BodyPartExamined = "HEAD"
    dimension = uid_of("dimension", dataset.SOPInstanceUID)  # highdicom's is random
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    finish(
        dataset,
        role="parametric-map",
        source=request.sources[0],
        model=request.model,
        at=request.analysed_at,
        description=wording.companion_description(request, "parametric map"),
        series_number=wording.series_number(request),
    )
    return dataset


def _placed_sources(request: ResultRequest, place: Geometry) -> list[Dataset]:
    """Return the sources' references with the place that the volume gives them."""
    frames = {source.sop_instance_uid: z for z, source in enumerate(place.slices)}
    images = [image for image in references(request.sources) if image.SOPInstanceUID in frames]
    for image in images:
        image.FrameOfReferenceUID = geometry.frame_of_reference(place, image.SeriesInstanceUID)
        image.PositionReferenceIndicator = ""
        image.Rows, image.Columns = place.shape_zyx[1:]
        if "NumberOfFrames" in image:
            image.SharedFunctionalGroupsSequence = [geometry.shared_groups(place)]
            image.PerFrameFunctionalGroupsSequence = [
                geometry.frame_groups(place, z) for z in range(place.shape_zyx[0])
            ]
        else:
            image.ImagePositionPatient = geometry.position(place, frames[image.SOPInstanceUID])
            image.ImageOrientationPatient = geometry.orientation(place)
            image.PixelSpacing = geometry.pixel_spacing(place)
            image.SliceThickness = geometry.ds(place.spacing_zyx_mm[0])
    return images
