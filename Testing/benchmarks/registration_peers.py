"""Peers that pip installs, each by the settings that serve it best here.

    registration_peers.py register METHOD REFERENCE TEMPLATE FOLDER
    registration_peers.py dense METHOD REFERENCE TEMPLATE FOLDER

``register`` is what is timed: it reads both files, registers, and writes its own kind of result into FOLDER. ``dense``
turns that into ``dense.npy``: u in mm (LPS) at every voxel of the reference, float32 ``[z, y, x, 3]``. Runs in an
environment of its own with the packages of ``registration_peers.txt``. Intensities are clipped to [-1000, 200] HU; a
mask, where one is taken, is the reference's lungs by threshold, dilated by 4 voxels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

THREADS, MASK_VOX, LUNG_HU = 2, 4, -500
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(THREADS)


def scans(reference: str, template: str, top: float = 200.0) -> list[sitk.Image]:
    """Both scans, clipped."""
    read = (sitk.ReadImage(name, sitk.sitkFloat32) for name in (reference, template))
    return [sitk.Clamp(image, lowerBound=-1000, upperBound=top) for image in read]


def on_the_same_grid(fixed: sitk.Image, moving: sitk.Image) -> sitk.Image:
    """For programs that know no physical space."""
    return sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkLinear, -1000.0)


def lung_mask(fixed: sitk.Image) -> sitk.Image:
    """Air that does not reach the sides of the scan, dilated."""
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(fixed < LUNG_HU))
    outside = [np.unique(labels[:, :, side]) for side in (0, -1)] + [np.unique(labels[:, side]) for side in (0, -1)]
    lungs = (labels > 0) & ~np.isin(labels, np.concatenate(outside))
    mask = sitk.GetImageFromArray(lungs.astype(np.uint8))
    mask.CopyInformation(fixed)
    return sitk.BinaryDilate(mask, [MASK_VOX] * 3)


def save(u: np.ndarray, out: Path) -> None:
    np.save(out / "dense.npy", np.ascontiguousarray(u, dtype=np.float32))


def displacement(transform: sitk.Transform, fixed: sitk.Image) -> np.ndarray:
    """U of ``transform`` on the grid of ``fixed``."""
    found = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    )
    return sitk.GetArrayFromImage(found)


def field_transform(image: sitk.Image) -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))


# -- greedy -------------------------------------------------------------------------------------
AFFINE = "-i fixed moving -a -dof 12 -ia-identity -m NCC 2x2x2 -n 100x50x0 -o {} -threads 2"
DEFORMABLE = "-i fixed moving -m NCC 2x2x2 -n 100x100x40 -s 2vox 0.7vox -gm mask -it {} -o {} -threads 2"
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def greedy(reference: str, template: str, out: Path) -> None:
    from picsl_greedy import Greedy3D

    fixed, moving = scans(reference, template)
    mask = sitk.Cast(lung_mask(fixed), sitk.sitkFloat32)
    tool = Greedy3D()
    tool.execute(AFFINE.format(out / "affine.mat"), fixed=fixed, moving=moving)
    deformable = DEFORMABLE.format(out / "affine.mat", out / "warp.nii.gz")
    tool.execute(deformable, fixed=fixed, moving=moving, mask=mask)


def greedy_dense(reference: str, template: str, out: Path) -> None:
    matrix = RAS @ np.loadtxt(out / "affine.mat") @ RAS
    affine = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    both = sitk.CompositeTransform([affine, field_transform(sitk.ReadImage(str(out / "warp.nii.gz")))])
    save(displacement(both, sitk.ReadImage(reference)), out)  # the last of the list acts first


# -- convexAdam ---------------------------------------------------------------------------------
def convexadam(reference: str, template: str, out: Path) -> None:
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    torch.set_num_threads(THREADS)
    fixed, moving = scans(reference, template, top=400.0)
    moving = on_the_same_grid(fixed, moving)
    arrays = [torch.from_numpy(sitk.GetArrayFromImage(image)) for image in (fixed, moving)]
    np.save(out / "voxels.npy", convex_adam_pt(*arrays, dtype=torch.float32).astype(np.float32))


def convexadam_dense(reference: str, template: str, out: Path) -> None:
    fixed = sitk.ReadImage(reference)
    vox = np.load(out / "voxels.npy")[..., ::-1] * np.asarray(fixed.GetSpacing())
    save(vox @ np.reshape(fixed.GetDirection(), (3, 3)).T, out)


# -- elastix ------------------------------------------------------------------------------------
def elastix(reference: str, template: str, out: Path) -> None:
    """Affine, then B-splines with normalised correlation and bending energy, as in EMPIRE10's Par0011."""
    import itk

    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(THREADS)
    fixed, moving = scans(reference, template)
    names = [str(out / f"{side}.nii") for side in ("fixed", "moving", "mask")]
    for image, name in zip((fixed, moving, lung_mask(fixed)), names, strict=True):
        sitk.WriteImage(image, name)
    images = [itk.imread(name, itk.F) for name in names[:2]]
    parameters = itk.ParameterObject.New()
    for stage in ("affine", "bspline"):
        given = dict(parameters.GetDefaultParameterMap(stage, 5))
        given |= {
            "Metric": ["AdvancedNormalizedCorrelation"],
            "MaximumNumberOfIterations": ["250"],
            "NumberOfSpatialSamples": ["5000"],
            "ImageSampler": ["RandomSparseMask"],
            "NewSamplesEveryIteration": ["true"],
            "BSplineInterpolationOrder": ["1"],
            "AutomaticTransformInitialization": ["false"],
            "WriteResultImage": ["false"],
        }
        if stage == "bspline":
            given |= {
                "Registration": ["MultiMetricMultiResolutionRegistration"],
                "Metric": ["AdvancedNormalizedCorrelation", "TransformBendingEnergyPenalty"],
                "Metric0Weight": ["1.0"],
                "Metric1Weight": ["0.05"],
                "FinalGridSpacingInPhysicalUnits": ["10"],
                "GridSpacingSchedule": ["16", "8", "4", "2", "1"],
            }
        parameters.AddParameterMap(given)
    tool = itk.ElastixRegistrationMethod.New(images[0], images[1])
    tool.SetFixedMask(itk.imread(names[2], itk.UC))
    tool.SetParameterObject(parameters)
    tool.SetLogToConsole(False)
    tool.SetOutputDirectory(str(out))
    tool.UpdateLargestPossibleRegion()


def elastix_dense(reference: str, template: str, out: Path) -> None:
    import itk

    parameters = itk.ParameterObject.New()
    parameters.ReadParameterFiles([str(out / f"TransformParameters.{n}.txt") for n in (0, 1)])
    field = itk.transformix_deformation_field(
        itk.imread(str(out / "moving.nii"), itk.F), parameters, output_directory=str(out)
    )
    save(itk.array_from_image(field), out)


# -- plastimatch --------------------------------------------------------------------------------
PLASTIMATCH = "[GLOBAL]\nfixed={0}/fixed.nii\nmoving={0}/moving.nii\nfixed_roi={0}/mask.nii\nvf_out={0}/vf.mha\n"
STAGE = (
    "[STAGE]\nxform=bspline\noptim=lbfgsb\nimpl=plastimatch\nthreading=openmp\nmetric=mse\nmax_its=60\n"
    "regularization_lambda=0.005\ngrid_spac={0} {0} {0}\nres={1} {1} {1}\n"
)


def plastimatch(reference: str, template: str, out: Path) -> None:
    import subprocess

    fixed, moving = scans(reference, template)
    for image, side in ((fixed, "fixed"), (moving, "moving"), (lung_mask(fixed), "mask")):
        sitk.WriteImage(image, str(out / f"{side}.nii"))
    stages = "".join(STAGE.format(*pair) for pair in ((50, 4), (25, 2), (12, 1)))
    (out / "stages.txt").write_text(PLASTIMATCH.format(out) + stages)
    tool = Path(sys.executable).parent / "plastimatch"
    subprocess.run([str(tool), "register", str(out / "stages.txt")], check=True, stdout=subprocess.DEVNULL)


def plastimatch_dense(reference: str, template: str, out: Path) -> None:
    save(displacement(field_transform(sitk.ReadImage(str(out / "vf.mha"))), sitk.ReadImage(reference)), out)


# -- demons -------------------------------------------------------------------------------------
def demons(reference: str, template: str, out: Path) -> None:
    fixed, moving = scans(reference, template)
    moving, field = on_the_same_grid(fixed, moving), None
    for factor, iterations in ((4, 100), (2, 60), (1, 20)):
        small = [_shrunk(image, factor) for image in (fixed, moving)]
        tool = sitk.DiffeomorphicDemonsRegistrationFilter()
        tool.SetNumberOfIterations(iterations)
        tool.SetStandardDeviations(1.5)
        tool.SetMaximumUpdateStepLength(2.0)
        start = field and sitk.Resample(field, small[0], sitk.Transform(), sitk.sitkLinear, 0.0, field.GetPixelID())
        field = tool.Execute(*small, start) if start else tool.Execute(*small)
    sitk.WriteImage(field, str(out / "field.mha"))


def _shrunk(image: sitk.Image, factor: int) -> sitk.Image:
    if factor == 1:
        return image
    smooth = sitk.DiscreteGaussian(image, [(0.5 * factor * h) ** 2 for h in image.GetSpacing()])
    return sitk.Shrink(smooth, [factor] * 3)


def demons_dense(reference: str, template: str, out: Path) -> None:
    save(displacement(field_transform(sitk.ReadImage(str(out / "field.mha"))), sitk.ReadImage(reference)), out)


# -- ANTs ---------------------------------------------------------------------------------------
def ants(reference: str, template: str, out: Path) -> None:
    import ants as tool

    fixed, moving = scans(reference, template)
    for image, side in ((fixed, "fixed"), (moving, "moving")):
        sitk.WriteImage(image, str(out / f"{side}.nii"))
    images = [tool.image_read(str(out / f"{side}.nii")) for side in ("fixed", "moving")]
    tool.registration(*images, "antsRegistrationSyNQuick[s]", outprefix=f"{out}/ants_", random_seed=1)


def ants_dense(reference: str, template: str, out: Path) -> None:
    affine = sitk.ReadTransform(str(out / "ants_0GenericAffine.mat"))
    both = sitk.CompositeTransform([affine, field_transform(sitk.ReadImage(str(out / "ants_1Warp.nii.gz")))])
    save(displacement(both, sitk.ReadImage(reference)), out)


if __name__ == "__main__":
    step, method, fixed_name, moving_name, folder = sys.argv[1:]
    globals()[method if step == "register" else f"{method}_dense"](fixed_name, moving_name, Path(folder))
