/** All drivers that come with the library, in the order they are registered: look-ups and probes go from the last to the first. */
import type { DriverSpec } from './core/driver.ts';
import { blkdebug } from './filters/blkdebug/blkdebug.ts';
import { blkverify } from './filters/blkverify/blkverify.ts';
import { compress } from './filters/compress.ts';
import { copyOnRead } from './filters/copy-on-read.ts';
import { blklogwrites, log } from './filters/log/log.ts';
import { preallocate } from './filters/preallocate.ts';
import { throttle } from './filters/throttle/throttle.ts';
import { qcow2 } from './formats/qcow2/qcow2.ts';
import { raw } from './formats/raw.ts';
import { vdi } from './formats/vdi/vdi.ts';
import { nbd } from './nbd/client/driver.ts';
import { file, hostDevice } from './protocols/file.ts';
import { memory } from './protocols/memory.ts';
import { nullAio, nullCo } from './protocols/null.ts';

/** All drivers that come with the library, as a {@link Graph} takes them. */
export const DRIVERS: readonly DriverSpec[] = [
  file,
  hostDevice,
  nullCo,
  nullAio,
  memory,
  nbd,
  raw,
  vdi,
  qcow2,
  blkdebug,
  blkverify,
  log,
  blklogwrites,
  throttle,
  copyOnRead,
  compress,
  preallocate,
];
