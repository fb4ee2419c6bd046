/** What may be opened because an image says so: its backing file, its data file, its parent. The image may be hostile. */

/** A driver about to be opened below a name that was found inside an image. */
export interface ImplicitOpen {
  /** Shown name of the image that holds the name. */
  readonly namedBy: string;
  readonly driver: string;
  readonly kind: 'protocol' | 'format' | 'filter';
  /** Of a protocol; else empty. */
  readonly filename: string;
}

export interface OpenPolicy {
  /** Whether the driver may be opened. */
  allow(request: ImplicitOpen): boolean;
  /** Whether the format of a file may be guessed when the image does not tell it. */
  readonly probe: boolean;
  /** Most images below one another. */
  readonly depthMax: number;
}

const LOCAL = new Set(['file', 'host_device', 'null-co', 'null-aio']);

/** Local files, no network, no filters that read or do more than the image's own bytes, no guessing. */
export const DEFAULT_OPEN_POLICY: OpenPolicy = {
  allow: ({ driver, kind }) => kind === 'format' || (kind === 'protocol' && LOCAL.has(driver)),
  probe: false,
  depthMax: 200,
};
