/**
 * Events that a graph publishes through its host; on Node they are channels of `diagnostics_channel`.
 * Unwatched ones cost a look at whether someone listens.
 */
export interface Events {
  /** A node was opened, with all below it. */
  readonly 'diskwright:node:open': NodeEvent;
  readonly 'diskwright:node:close': NodeEvent;
  /** An image was made. */
  readonly 'diskwright:create': { readonly filename: string; readonly format: string };
  /** A device's tray was opened or closed (BL-MEDIA-2); the members are those of the event DEVICE_TRAY_MOVED. */
  readonly 'diskwright:device:tray-moved': TrayEvent;
  /** A blkdebug node did something to a request (BD-60). */
  readonly 'diskwright:fault': FaultEvent;
  /** The two sides of a blkverify node do not agree (BV-8); the message is a MismatchDetails. */
  readonly 'diskwright:mismatch': object;
  /** An image's metadata turned out to be wrong (Q-CORR-1); the members are those of the event BLOCK_IMAGE_CORRUPTED. */
  readonly 'diskwright:image-corrupted': ImageCorruptedEvent;
  /** A request of a disk's user has ended. While watched, none takes the fast path. */
  readonly 'diskwright:request': RequestEvent;
}

/** A node was opened, or closed. */
export interface NodeEvent {
  readonly node: string;
  readonly driver: string;
  readonly filename: string;
}

/** A device's tray moved: the members of QEMU's event DEVICE_TRAY_MOVED. */
export interface TrayEvent {
  readonly device: string;
  /** Of the guest's side of the device. */
  readonly id: string;
  readonly 'tray-open': boolean;
}

export interface FaultEvent {
  readonly node: string;
  readonly type: 'read' | 'write' | 'write-zeroes' | 'discard' | 'flush' | 'block-status';
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** `error`, `delay`, `torn`, … */
  readonly action: string;
}

export interface ImageCorruptedEvent {
  readonly device: string;
  readonly 'node-name': string;
  readonly msg: string;
  /** Of what could not be accessed, where that is known. Bytes. */
  readonly offset?: number;
  readonly size?: number;
  /** The image cannot be used any more. */
  readonly fatal: boolean;
}

/** A request of a disk's user has ended, well or not. */
export interface RequestEvent {
  readonly node: string;
  readonly kind: 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'truncate';
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  readonly milliseconds: number;
  readonly error?: unknown;
}
