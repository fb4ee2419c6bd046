/** Repairs that must not make things worse (Q-CHK-4). */
import { expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import { SimHost } from '../../testing/index.ts';

test.each(['leaks', 'all'] as const)(
  'Q-CHK-4: -r %s takes nothing for a leak when a table cannot be read',
  async (repair) => {
    const host = new SimHost({ record: false });
    const options = { cluster_size: 512 };
    await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 1 << 20, options });
    const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
    for (let i = 0; i < 3; i++) await disk.write(i * 64 * 512, new Uint8Array(2048).fill(i + 1));
    await disk.flush();
    const away = host.faults.inject({ operation: 'read', code: 'EIO', times: 1, skip: 1 });
    const report = await disk.check({ repair, finding: () => {} });
    away();
    expect(report).toMatchObject({ checkErrors: 1, leaksFixed: 0 });
    await disk.close();
    const { problems, leaks } = readQcow2(host.contents(PATH));
    expect([problems, leaks]).toEqual([[], []]);
  },
);
