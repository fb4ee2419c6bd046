/** All drivers, on any host. */
import type { DriverSpec } from '../../src/core/driver.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import { qcow2 } from '../../src/formats/qcow2/qcow2.ts';
import { raw } from '../../src/formats/raw.ts';
import { vdi } from '../../src/formats/vdi/vdi.ts';
import { file, hostDevice } from '../../src/protocols/file.ts';
import { memory } from '../../src/protocols/memory.ts';
import { nullAio, nullCo } from '../../src/protocols/null.ts';

export const DRIVERS: readonly DriverSpec[] = [nullCo, nullAio, memory, hostDevice, file, raw, vdi, qcow2];

export function graphOn(host: Host): Graph {
  return new Graph({ host, drivers: DRIVERS });
}
