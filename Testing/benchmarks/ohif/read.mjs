// Reads exported DICOM objects with OHIF's own published code, and prints as JSON what it would show.
//
//   cd FOLDER && npm install --ignore-scripts dcmjs@0.52.0 @cornerstonejs/adapters@5.14.0 @babel/runtime
//   for PART in sr@3.13.13 seg@3.13.2; do
//     npm pack @ohif/extension-cornerstone-dicom-$PART && mkdir -p node_modules/@ohif/extension-cornerstone-dicom-${PART%@*} &&
//     tar xzf ohif-extension-cornerstone-dicom-${PART%@*}-*.tgz --strip-components 1 \
//       -C node_modules/@ohif/extension-cornerstone-dicom-${PART%@*}
//   done
//   node Testing/benchmarks/ohif/read.mjs FOLDER OBJECTS CURRENT PRIOR
//
// FOLDER has the packages, OBJECTS is what `changemap export` wrote, CURRENT and PRIOR are the folders of both series.
// OHIF's extensions are bundles that ask for the application around them; what they ask for beside dcmjs and the
// adapters is put in place here by objects that do nothing. Their handlers of reports and segmentations, and the
// adapter that unpacks segmentations, are the real ones.

import fs from 'node:fs';
import Module, { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [packages, objects, current, prior] = process.argv.slice(2).map(name => path.resolve(name));
const require = createRequire(path.join(packages, 'index.js'));
globalThis.window = globalThis.self = globalThis;

const load = async name => {
  const entry = JSON.parse(fs.readFileSync(path.join(packages, 'node_modules', name, 'package.json')));
  const file = entry.exports?.['.']?.import ?? entry.module ?? entry.main;
  return import(pathToFileURL(path.join(packages, 'node_modules', name, file)));
};
const dcmjs = (await load('dcmjs')).default;
const adapters = await load('@cornerstonejs/adapters');
const { DicomMessage, DicomMetaDictionary } = dcmjs.data;

const buffer = file => {
  const bytes = fs.readFileSync(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
};
const read = file => {
  const content = DicomMessage.readFile(buffer(file));
  const dataset = DicomMetaDictionary.naturalizeDataset(content.dict);
  dataset._meta = DicomMetaDictionary.namifyDataset(content.meta);
  return dataset;
};
const series = folder =>
  fs.readdirSync(folder).map(name => read(path.join(folder, name))).sort((a, b) => a.InstanceNumber - b.InstanceNumber);

// -- the application around the extensions ----------------------------------------------------
class ImageSet {
  constructor(images) {
    Object.assign(this, { images, SeriesInstanceUID: images[0].SeriesInstanceUID, StudyInstanceUID: images[0].StudyInstanceUID });
    Object.assign(this, { FrameOfReferenceUID: images[0].FrameOfReferenceUID, displaySetInstanceUID: images[0].SeriesInstanceUID });
    Object.assign(this, { Modality: images[0].Modality, sopClassUids: [images[0].SOPClassUID], isReconstructable: true });
  }
}
const sets = [new ImageSet(series(current)), new ImageSet(series(prior))];
const byImageId = new Map(sets.flatMap(set => set.images.map(image => [`wadors:${image.SOPInstanceUID}`, image])));
const nothing = () =>
  new Proxy(function () {}, {
    get: (_, key) => (key === Symbol.toPrimitive ? () => '' : key === '__esModule' ? true : nothing()),
    apply: () => nothing(),
    construct: () => nothing(),
  });
const core = {
  utils: {
    ...{ guid: () => 'guid', sortStudyInstances: list => list, sortDisplaySetsCopy: list => list },
    ...{ toArray: x => [x].flat(), sopClassDictionary: DicomMetaDictionary.sopClassUIDsByName },
  },
  classes: {
    ImageSet,
    MetadataProvider: {
      getUIDsFromImageID: id => ({ SOPInstanceUID: byImageId.get(id).SOPInstanceUID, frameNumber: 1 }),
    },
  },
  DisplaySetService: { EVENTS: { DISPLAY_SETS_ADDED: 'added' } },
};
const shown = [];
const annotations = { state: { addAnnotation: annotation => shown.push(annotation) } };
const known = { '@ohif/core': core, '@cornerstonejs/adapters': adapters, dcmjs };
const mathOf = require('gl-matrix');
known['gl-matrix'] = mathOf;
const planeOf = image => {
  const [rowCosines, columnCosines] = [image.ImageOrientationPatient.slice(0, 3), image.ImageOrientationPatient.slice(3)];
  return {
    ...{ rowCosines, columnCosines, imageOrientationPatient: image.ImageOrientationPatient.map(Number) },
    imagePositionPatient: image.ImagePositionPatient.map(Number),
    ...{ rows: image.Rows, columns: image.Columns, frameOfReferenceUID: image.FrameOfReferenceUID },
    ...{ rowPixelSpacing: Number(image.PixelSpacing[0]), columnPixelSpacing: Number(image.PixelSpacing[1]) },
  };
};
const metadata = {
  get(kind, id) {
    const image = byImageId.get(id);
    if (!image) return undefined;
    if (kind === 'imagePlaneModule') return planeOf(image);
    if (kind === 'generalSeriesModule') return { seriesInstanceUID: image.SeriesInstanceUID, modality: 'CT' };
    if (kind === 'generalImageModule' || kind === 'sopCommonModule')
      return { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID };
    return image;
  },
};
const imageToWorld = (id, [column, row]) => {
  const { imagePositionPatient: o, rowCosines: r, columnCosines: c, ...plane } = planeOf(byImageId.get(id));
  return o.map((v, i) => v + Number(r[i]) * column * plane.columnPixelSpacing + Number(c[i]) * row * plane.rowPixelSpacing);
};
known['@cornerstonejs/core'] = new Proxy({ utilities: { imageToWorldCoords: imageToWorld }, metaData: metadata }, {
  get: (own, key) => own[key] ?? nothing(),
});
known['@cornerstonejs/tools'] = new Proxy({ annotation: annotations }, { get: (own, key) => own[key] ?? nothing() });
const original = Module._load;
Module._load = (name, ...rest) =>
  name in known ? known[name] : /^[@a-z]/.test(name) && !name.startsWith('node:') && !Module.isBuiltin(name) ? nothing() : original(name, ...rest);

const displaySetService = {
  ...{ EVENTS: { DISPLAY_SETS_ADDED: 'added' }, activeDisplaySets: sets, subscribe: () => ({ unsubscribe() {} }) },
  getDisplaySetsForReferences: references =>
    [references].flat().flatMap(one => sets.filter(set => set.SeriesInstanceUID === one.SeriesInstanceUID)),
  getDisplaySetByUID: uid => sets.find(set => set.displaySetInstanceUID === uid),
};
const services = {
  ...{ displaySetService, measurementService: { getSourceMappings: () => [] } },
  customizationService: { getCustomization: () => undefined },
  uiNotificationService: { show: message => { throw new Error(message.message); } },
};
const dataSource = {
  getImageIdsForDisplaySet: set => set.images.map(image => `wadors:${image.SOPInstanceUID}`),
  retrieve: { bulkDataURI: () => undefined },
};
const extensionManager = { getDataSources: () => [dataSource], getActiveDataSource: () => [dataSource] };
const handlerOf = name => {
  const folder = path.join(packages, 'node_modules', '@ohif', name);
  const entry = JSON.parse(fs.readFileSync(path.join(folder, 'package.json')));
  const bundle = original(path.join(folder, entry.main), null, false);
  return (bundle.default ?? bundle).getSopClassHandlerModule({ servicesManager: { services }, extensionManager })[0];
};

// -- what comes back ------------------------------------------------------------------------
const result = {};
const [report] = handlerOf('extension-cornerstone-dicom-sr').getDisplaySetsFromSeries([read(path.join(objects, 'measurements.dcm'))]);
await report.load();
result.report = {
  images: report.referencedImages.length,
  measurements: report.measurements.map(one => ({
    ...{ tracking: one.TrackingIdentifier, uid: one.TrackingUniqueIdentifier, shape: one.graphicType },
    ...{ onImage: one.ReferencedSOPInstanceUID, labels: one.labels.map(label => `${label.label}: ${label.value}`) },
  })),
};
const file = path.join(objects, 'segmentation.dcm');
if (fs.existsSync(file)) {
  const [found] = handlerOf('extension-cornerstone-dicom-seg').getDisplaySetsFromSeries([read(file)]);
  const imageIds = dataSource.getImageIdsForDisplaySet(sets[0]);
  const maps = await adapters.adaptersSEG.Cornerstone.Segmentation.generateToolState(imageIds, buffer(file), metadata, false, 1e-3, 4);
  const counts = {};
  const labels = new Uint8Array(maps.labelmapBufferArray[0]);
  labels.forEach(value => { if (value) counts[value] = (counts[value] ?? 0) + 1; });
  result.segmentation = {
    ofCurrentScan: found.referencedDisplaySetInstanceUID === sets[0].displaySetInstanceUID,
    labelmaps: maps.labelmapBufferArray.length,
    segments: maps.segMetadata.data.filter(Boolean).map(one => ({ number: one.SegmentNumber, label: one.SegmentLabel, tracking: one.TrackingUID ?? '' })),
    voxels: counts,
  };
}
console.log(JSON.stringify(result, null, 1));
