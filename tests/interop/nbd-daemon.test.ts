/** QEMU's storage daemon and emulator: their servers with our client, and as clients of our server. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost, open, serve } from '../../src/node/index.ts';
import { inquireExports } from '../../src/node/nbd/inquire.ts';
import { startServer, stopServer } from './nbd-peers.ts';
import { missing } from './nbd-programs.ts';

const MIB = 1 << 20;
let folder: string;
const running: ChildProcess[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  writeFileSync(join(folder, 'a.img'), Buffer.alloc(MIB, 'a'));
  writeFileSync(join(folder, 'b.img'), Buffer.alloc(2 * MIB, 'b'));
});
afterEach(async () => {
  for (const child of running.splice(0).reverse()) await stopServer(child);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);
const host = nodeHost({ warn: () => {} });
const client = (options: NestedOptions, more: { writable?: boolean; signal?: AbortSignal } = {}): Promise<Disk> =>
  new Graph({ host, drivers: DRIVERS }).open({ driver: 'nbd', ...options }, more);

const note = missing('qemu-storage-daemon');
describe.skipIf(note !== '')(`qemu-storage-daemon${note}`, () => {
  const fileNode = (name: string) => ['--blockdev', `driver=file,node-name=${name},filename=${path(`${name}.img`)}`];
  const nbdExport = (name: string, more = '') => [
    '--export',
    `type=nbd,id=${name},node-name=${name},name=${name}${more}`,
  ];

  test('two exports: both are listed; each is read and written; a third connection waits for its turn', async () => {
    const socket = path('daemon.sock');
    const server = ['--nbd-server', `addr.type=unix,addr.path=${socket},max-connections=2`];
    const all = [...fileNode('a'), ...fileNode('b'), ...server, ...nbdExport('a', ',writable=on'), ...nbdExport('b')];
    running.push(await startServer('qemu-storage-daemon', all, socket));
    // The connection that found it there may not be gone yet.
    const listed = await inquireExports({ address: { type: 'unix', path: socket } });
    expect(listed.map(({ name, size }) => [name, size])).toEqual([
      ['a', MIB],
      ['b', 2 * MIB],
    ]);
    const a = await client({ path: socket, export: 'a' }, { writable: true });
    const b = await client({ path: socket, export: 'b' });
    expect([(await a.read(0, 1))[0], (await b.read(MIB, 1))[0]]).toEqual([0x61, 0x62]);
    await a.write(1000, Uint8Array.of(1, 2, 3));
    await a.flush();
    expect([...readFileSync(path('a.img')).subarray(999, 1004)]).toEqual([0x61, 1, 2, 3, 0x61]);
    let third = false;
    const waiting = client({ path: socket, export: 'b' }).then((disk) => {
      third = true;
      return disk;
    });
    await a.read(0, 512);
    expect(third).toBe(false);
    await a.close();
    await using last = await waiting;
    expect((await last.read(0, 1))[0]).toBe(0x62);
    await b.close();
  });

  test('in front of our server: what is written through it is on our disk', async () => {
    await using disk = await open({ driver: 'memory', size: 4 * MIB }, { writable: true });
    await using served = await serve(disk, { name: 'e', socket: path('ours.sock') });
    const socket = path('front.sock');
    const node = `driver=nbd,node-name=n,server.type=unix,server.path=${path('ours.sock')},export=e`;
    const front = ['--nbd-server', `addr.type=unix,addr.path=${socket}`, ...nbdExport('n', ',writable=on')];
    running.push(await startServer('qemu-storage-daemon', ['--blockdev', node, ...front], socket));
    const through = await client({ path: socket, export: 'n' }, { writable: true });
    const data = Uint8Array.from({ length: 300_000 }, (_, index) => index % 251);
    await through.write(12_345, data);
    await through.writeZeroes(20_000, 4096);
    await through.flush();
    data.fill(0, 20_000 - 12_345, 20_000 - 12_345 + 4096);
    expect(Buffer.compare(await disk.read(12_345, data.length), data)).toBe(0);
    expect(Buffer.compare(await through.read(12_345, data.length), data)).toBe(0);
    expect(served.stats().errors).toBe(0);
    await through.close();
    for (const child of running.splice(0)) await stopServer(child);
  });
});

const emulator = missing('qemu-system-x86_64');
test.skipIf(emulator !== '')(`an emulator's drive: QMP tells the size of our disk${emulator}`, async () => {
  await using disk = await open({ driver: 'memory', size: 3 * MIB }, { writable: true });
  await using served = await serve(disk, { name: 'e', socket: path('drive.sock') });
  const machine = ['-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp', 'stdio'];
  const drive = ['-drive', `if=none,id=d,format=raw,file=${served.uri}`];
  const child = spawn('qemu-system-x86_64', [...machine, ...drive], { stdio: ['pipe', 'pipe', 'inherit'] });
  running.push(child);
  for (const execute of ['qmp_capabilities', 'query-named-block-nodes', 'quit']) {
    child.stdin.write(JSON.stringify({ execute }));
  }
  const sizes: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const answer = JSON.parse(line) as { return?: { image: { 'virtual-size': number } }[] };
    if (Array.isArray(answer.return)) sizes.push(...answer.return.map(({ image }) => image['virtual-size']));
  }
  if (child.exitCode === null) await once(child, 'exit');
  expect(sizes).toEqual([3 * MIB, 3 * MIB]);
});
