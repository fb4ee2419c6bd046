/** The main entry runs where there is no Node.js: bundled for browsers, in a context that has the web's globals only. */
import { createContext, runInContext } from 'node:vm';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { root } from './tidy/source-files.ts';

const PROGRAM = `
import { compareDisks, convertDisks, createImage, checksumDisk, DRIVERS, Graph, secrets } from './src/index.ts';
import { SimHost } from './src/testing/index.ts';
import { blobProtocol } from './examples/blob-driver.ts';

async function roundTrip() {
  const host = new SimHost({ seed: 1 });
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: 'a.vdi', format: 'vdi', size: 64 << 20 });
  const disk = await graph.open('a.vdi', { writable: true });
  const text = new TextEncoder().encode('written in a browser');
  await disk.write(5 << 20, text);
  await disk.flush();
  await convertDisks({ graph, sources: [disk], target: { filename: 'b.raw', format: 'raw' } });
  const raw = await graph.open('b.raw', { format: 'raw' });
  const { kind } = await compareDisks(disk, raw);
  const sums = [await checksumDisk(disk), await checksumDisk(raw)];
  await raw.close();
  await disk.close();

  const file = await host.files.open('a.vdi', { write: false });
  const bytes = new Uint8Array(file.size());
  await file.read(0, bytes);
  await file.close();
  const page = new Graph({ host, drivers: [...DRIVERS, blobProtocol(new Map([['dropped', new Blob([bytes])]]))] });
  const dropped = await page.open('blob:dropped');
  const read = new TextDecoder().decode(await dropped.read(5 << 20, text.length));
  const { format } = dropped;
  await dropped.close();

  secrets(host).set('s', 'open sesame');
  const options = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's' };
  await createImage(graph, { filename: 'c.qcow2', format: 'qcow2', size: 1 << 20, options });
  const driverOptions = { 'encrypt.key-secret': 's' };
  const locked = await graph.open('c.qcow2', { writable: true, driverOptions });
  await locked.write(5000, text);
  const secret = new TextDecoder().decode(await locked.read(5000, text.length));
  await locked.close();
  return { kind, equal: sums[0].digest === sums[1].digest, format, read, secret };
}
globalThis.result = roundTrip();
`;

test('a VDI is made, written, converted, and read from a Blob, an encrypted qcow2 image too, without Node.js', async () => {
  const bundled = await build({
    stdin: { contents: PROGRAM, resolveDir: root, loader: 'ts' },
    alias: { diskwright: './src/index.ts' },
    absWorkingDir: root,
    bundle: true,
    write: false,
    platform: 'browser',
    format: 'iife',
    target: 'es2023',
    logLevel: 'silent',
  });
  const [output] = bundled.outputFiles;
  const web = { AbortController, AbortSignal, Blob, crypto, DOMException, performance, TextDecoder, TextEncoder };
  const context = createContext({ ...web });
  runInContext(output?.text ?? '', context);
  expect({ ...(await context.result) }).toEqual({
    kind: 'identical',
    equal: true,
    format: 'vdi',
    read: 'written in a browser',
    secret: 'written in a browser',
  });
});
