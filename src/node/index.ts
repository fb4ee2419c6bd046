/** Entry `diskwright/node`: the library on this machine's files. Everything of the main entry, and functions that take file names. */
export * from '../index.ts';
export { type NodeHostOptions, nodeHost } from './host.ts';
export {
  amend,
  type CommitFileOptions,
  type CompareFileOptions,
  type ConvertFileOptions,
  type CreateOptions,
  check,
  checksum,
  commit,
  compact,
  compare,
  convert,
  create,
  type DdFileOptions,
  dd,
  defaultGraph,
  type ImageInfo,
  info,
  infoChain,
  type MeasureFileOptions,
  map,
  measure,
  open,
  type RebaseFileOptions,
  rebase,
  resize,
  type Source,
  type SourceFormat,
} from './images.ts';
export { type ListenAddress, type Listening, listen } from './nbd/listen.ts';
export { type Servable, type ServeOptions, type Serving, serve } from './nbd/serve.ts';
export { clientTls } from './nbd/tls-client.ts';
export { loadPsk, loadX509, type TlsCredentials, type TlsEndpoint, type X509Options } from './nbd/tls-credentials.ts';
export { serverTls } from './nbd/tls-server.ts';
