/** Entry `diskwright/node`: the library on this machine's files. Everything of the main entry, and functions that take file names. */
export * from '../index.ts';
export { type NodeHostOptions, nodeHost } from './host.ts';
export {
  type CompareFileOptions,
  type ConvertFileOptions,
  type CreateOptions,
  check,
  checksum,
  compact,
  compare,
  convert,
  create,
  type DdFileOptions,
  dd,
  defaultGraph,
  type ImageInfo,
  info,
  type MeasureFileOptions,
  map,
  measure,
  open,
  resize,
  type Source,
  type SourceFormat,
} from './images.ts';
