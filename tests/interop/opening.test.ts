/** Opening beside qemu-img: the same words for the same mistakes (BL-OPEN, BL-NAME-8), the same names shown (BL-REFRESH). */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import type { OpenOptions } from '../../src/core/open-options.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { inFolder, peersMissing, qemuImg, skipNote } from './peer.ts';

const KIB = 1024;

/** `json:…` and file names as they are, else `key=value,…`. The folder is `@`. */
async function opened(source: string, options: OpenOptions = { noIO: true, noBacking: true }): Promise<string> {
  const graph = new Graph({ host: nodeHost({ warn: () => {} }), drivers: DRIVERS });
  try {
    const tree: OptionTree = Object.fromEntries(source.split(',').map((item) => item.split('=')));
    const disk = await graph.open(isName(source) ? source : tree, options);
    await disk.close();
    return `image: ${disk.filename}`;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return `Could not open '${source}': ${error.message}`;
  }
}

function openedByPeer(source: string): string {
  const { stdout, stderr } = qemuImg('info', ...(isName(source) ? [] : ['--image-opts']), source);
  return stdout === '' ? stderr.trimEnd().replace(/^qemu-img: /, '') : (stdout.split('\n')[0] ?? '');
}

function isName(source: string): boolean {
  return /^(json|nope|file|host_device|blkdebug|blkverify|null-co):|^[^=]*$/.test(source);
}

/** A file of zeroes, one with a colon in its name, and a VDI. */
async function inWorld(source: string, work: (source: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    fs.writeFileSync(join(folder, 'raw'), new Uint8Array(64 * KIB));
    fs.writeFileSync(join(folder, 'x:y'), new Uint8Array(64 * KIB));
    qemuImg('create', '-q', '-f', 'vdi', join(folder, 'vdi'), '1M');
    await work(source.replaceAll('@', folder));
  });
}

const FILE = '"file": {"driver": "file", "filename": "@/raw"}';

const REFUSALS: readonly string[] = [
  // BL-OPEN-1, -5, -7, -17.
  'node-name=x',
  'filename=@/raw',
  'file.driver=file',
  'driver=nope',
  'driver=raw,file.driver=nope',
  'nope:x',
  '',
  'file:',
  'file:@/none',
  'driver=raw,file.filename=file:@/raw',
  // BL-OPEN-2, -12.
  'driver=vdi',
  'driver=raw,file=nope',
  'driver=raw,file=nope,file.driver=file',
  `json:{"driver": "raw", "file": {}}`,
  `json:{"driver": "raw", "file": null}`,
  'json:{"file": {}}',
  'json:{"file": []}',
  'driver=blkverify,raw.filename=@/raw,test.filename=@/raw',
  // BL-OPEN-20.
  'driver=raw,node-name=1x,file.filename=@/raw',
  'driver=raw,node-name=,file.filename=@/raw',
  'driver=raw,node-name=x,file.filename=@/raw,file.node-name=x',
  'driver=raw,node-name=abcdefghijklmnopqrstuvwxyz0123456,file.filename=@/raw',
  // BL-OPEN-4, -23, -25, -26.
  'driver=raw,read-only=maybe,file.filename=@/raw',
  'driver=raw,cache.direct=maybe,file.filename=@/raw',
  'driver=raw,force-share=on,read-only=off,file.filename=@/raw',
  'driver=raw,discard=x,file.filename=@/raw',
  'driver=raw,detect-zeroes=x,file.filename=@/raw',
  'driver=raw,detect-zeroes=unmap,discard=ignore,file.filename=@/raw',
  // BL-OPEN-29.
  'driver=raw,bogus=1,file.filename=@/raw',
  'driver=raw,file.filename=@/raw,file.bogus=1',
  'driver=preallocate,bogus=1,file.filename=@/raw',
  'driver=blkdebug,bogus=1,image.filename=@/raw',
  'driver=raw,backing.driver=raw,file.filename=@/raw',
  'driver=vdi,backing.driver=raw,file.filename=@/vdi',
  'driver=vdi,backing=nope,file.filename=@/vdi',
  // BL-NAME-8.
  'json:',
  'json:[1]',
  'json:{"driver":}',
  'json:{"driver": "raw", "driver": "raw"}',
  `json:{"driver": "raw", ${FILE}, "a": {}}`,
  `json:{"driver": "raw", ${FILE}, "a": []}`,
  `json:{"driver": "raw", ${FILE}, "a": null}`,
  `json:{"driver": "raw", ${FILE}, "a": {"b": [1, {"c": 2}]}}`,
  'json:{"driver": "file", "filename": "file:x:y"}',
  // BL-SIZE-1.
  'driver=null-co,size=9223372036854775807',
];

/** Opened with their backing files, as qemu-io does. */
const WITH_BACKING: readonly string[] = [
  'driver=raw,backing.driver=raw,file.filename=@/raw',
  'driver=raw,backing=nope,file.filename=@/raw',
  'driver=file,backing.driver=raw,filename=@/raw',
  'driver=preallocate,backing.driver=raw,file.filename=@/raw',
];

const SHOWN: readonly string[] = [
  '@/raw',
  '@/vdi',
  'file:@/raw',
  'file:@/x:y',
  'driver=raw,file.filename=@/raw',
  'file.filename=@/x:y',
  'driver=file,filename=@/raw',
  'driver=raw,offset=512,file.filename=@/raw',
  'driver=raw,size=1024,file.filename=@/raw',
  'driver=raw,size=1024,offset=512,file.filename=@/raw',
  'driver=raw,file.driver=raw,file.file.filename=@/raw',
  'driver=raw,file.driver=raw,file.size=512,file.file.filename=@/raw',
  'driver=null-co',
  'driver=null-co,size=1k',
  'driver=raw,file.driver=null-co,file.size=1k',
  `json:{"driver": "raw", ${FILE}}`,
  `json:{"driver": "raw", "node-name": "n", "discard": "unmap", ${FILE}}`,
  'driver=preallocate,file.filename=@/raw',
  'driver=vdi,file.filename=@/vdi',
  'driver=vdi,file.driver=raw,file.file.filename=@/vdi',
  'driver=vdi,file.driver=preallocate,file.file.filename=@/vdi',
  'driver=blkdebug,image.filename=@/raw',
  'driver=raw,file.driver=blkdebug,file.image.filename=@/raw',
  'blkdebug::@/raw',
  'driver=raw,file.driver=blkdebug,file.align=4096,file.image.filename=@/raw',
  'driver=raw,file.driver=blkverify,file.raw.filename=@/raw,file.test.driver=raw,file.test.file.filename=@/raw',
];

describe.skipIf(peersMissing !== undefined)(`beside qemu-img${skipNote}`, () => {
  test.each(REFUSALS)('refused: %s', (source) =>
    inWorld(source, async (inPlace) => {
      const peers = openedByPeer(inPlace);
      expect(peers).toMatch(/^Could not open /);
      expect(await opened(inPlace)).toBe(peers);
    }),
  );

  test.each(WITH_BACKING)('refused with a backing file: %s', (source) =>
    inWorld(source, async (inPlace) => {
      const { stderr } = spawnSync('qemu-io', ['-c', `open -o ${inPlace}`], { encoding: 'utf8' });
      const ours = await opened(inPlace, {});
      expect(stderr.split('\n')[0]).toBe(ours.replace(`Could not open '${inPlace}'`, "qemu-io: can't open"));
    }),
  );

  test.each(SHOWN)('shown: %s', (source) =>
    inWorld(source, async (inPlace) => {
      const peers = openedByPeer(inPlace);
      expect(peers).toMatch(/^image: /);
      expect(await opened(inPlace)).toBe(peers);
    }),
  );
});
