/** diskwright-img prints what qemu-img prints on exports of a qemu-nbd (the matrix of nbd.md; N-5, N-6, N-130). */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { wordsOf } from './cli-cases.ts';
import { SideBySide, withoutChildren } from './cli-programs.ts';
import { startServer, stopServer } from './nbd-peers.ts';
import { missing } from './nbd-programs.ts';

const MIB = 1 << 20;
/** U: the export of a writable server, R: of a read-only one; S, T: their sockets. Both programs find theirs there. */
const READING = [
  'info U',
  'info --output=json U',
  'info -f raw U',
  'map U',
  'map --output=json U',
  'map -s 64k -l 4k --output=json U',
  'compare -f raw -F raw data.img U',
  'compare -s -f raw -F raw data.img U',
  'compare -f raw -F raw other.img U',
  'compare -f raw -F raw U other.img',
  'compare -f raw -F raw long.img U',
  'measure -O raw U',
  'measure -O vdi U',
  'dd -f raw -O raw if=U of=o.img bs=65536 count=4',
  'convert -f raw -O raw U o.img',
  'convert -f raw -O vdi U o.vdi',
  'compare -f raw -F raw o.img U',
  'check -f raw U',
  'info nbd+unix:///nope?socket=S',
  'info nbd:unix:S:exportname=e',
  'info nbd+unix:///e?socket=none',
  'info nbd:localhost:1',
  'info nbd://localhost:1/',
  'info nbd:localhost',
  'info nbd:127.0.0.1:tcpmux',
  'info nbd:127.0.0.1:no-such-service',
  'info NBD://localhost:1/',
  'info nbd+foo://localhost:1/',
  'info nbds://localhost:1/',
  'info --image-opts driver=nbd',
  'info --output=json null-co://',
  'info --image-opts driver=nbd,path=/x,host=a',
  'info --image-opts driver=nbd,port=3',
  'info --image-opts driver=nbd,host=localhost,port=foo',
  'info --image-opts driver=nbd,host=127.0.0.1,port=tcpmux',
  'info --image-opts driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=tcpmux',
  'info --image-opts driver=nbd,server.type=unix',
  'info --image-opts driver=nbd,server.type=foo,server.path=x',
  'info --image-opts driver=nbd,server.type=inet,server.host=x',
  'info --image-opts driver=nbd,path=/x,foo=bar',
  'info --image-opts driver=nbd,path=S,export=e,foo=bar',
  'info --image-opts driver=nbd,server.type=unix,server.path=S,export=e',
  'info --image-opts driver=nbd,path=S,export=e,open-timeout=x',
  'info --image-opts driver=nbd,path=S,export=e,reconnect-delay=1',
  'info --image-opts driver=nbd,path=S,export=e,tls-creds=q',
  'info --image-opts driver=raw,offset=512,file.driver=nbd,file.path=S,file.export=e',
  'info json:{"driver":"nbd","server":{"type":"unix","path":"S"},"export":"e"}',
  'info json:{"driver":"raw","offset":512,"file":{"driver":"nbd","server":{"type":"unix","path":"S"},"export":"e"}}',
] as const;

const WRITING = [
  ['convert -n -f raw -O raw other.img U', 'compare -f raw -F raw other.img U'],
  ['convert -f raw -O raw other.img U', 'compare -f raw -F raw other.img U', 'map --output=json U'],
  ['convert -f raw -O raw long.img U'],
  ['convert -n -f raw -O raw long.img U'],
  ['create -f raw U 1M', 'create -f raw U 512K', 'create -f raw U 2M', 'create -f vdi U 256K', 'info U'],
  ['resize -f raw U 2M', 'resize -f raw --shrink U 512k'],
  ['dd -f raw -O raw if=other.img of=U bs=65536', 'compare -f raw -F raw other.img U'],
  ['dd -f raw -O raw if=long.img of=U bs=65536'],
  [
    'convert -n -f raw -O raw other.img R',
    'convert -f raw -O raw other.img R',
    'create -f raw R 1M',
    'resize -f raw R 2M',
    'dd -f raw -O raw if=other.img of=R bs=65536',
  ],
] as const;

const absent = missing('qemu-img', 'qemu-nbd');

describe.skipIf(absent !== '')(`qemu-img on NBD exports${absent}`, () => {
  let pair: SideBySide;
  let sockets: string;
  let running: ChildProcess[] = [];

  beforeAll(async () => {
    pair = await SideBySide.make();
    sockets = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  });
  afterAll(() => {
    pair?.remove();
    rmSync(sockets, { recursive: true, force: true });
  });

  async function serve(folder: string, name: string, ...args: string[]): Promise<void> {
    const data = Buffer.alloc(MIB);
    data.fill(5, 65536, 70_000);
    writeFileSync(join(folder, `${name}.img`), data);
    const socket = join(sockets, name);
    running.push(
      await startServer(
        'qemu-nbd',
        ['-t', '-e', '9', '-k', socket, '-f', 'raw', '-x', 'e', ...args, join(folder, `${name}.img`)],
        socket,
      ),
    );
  }

  beforeEach(async () => {
    pair.clear();
    for (const folder of [pair.ours, pair.theirs]) {
      const data = Buffer.alloc(MIB);
      data.fill(5, 65536, 70_000);
      writeFileSync(join(folder, 'data.img'), data);
      writeFileSync(join(folder, 'long.img'), Buffer.concat([data, data]));
      data[70_001] = 1;
      writeFileSync(join(folder, 'other.img'), data);
    }
  });
  afterEach(async () => {
    for (const child of running) await stopServer(child);
    running = [];
  });

  /** The same line for both, one after the other, each on its own server under one name. */
  async function sameOf(lines: readonly string[]): Promise<void> {
    const outcomes: unknown[][] = [];
    for (const side of ['theirs', 'ours'] as const) {
      for (const child of running) await stopServer(child);
      running = [];
      await serve(pair[side], 'rw');
      await serve(pair[side], 'ro', '-r');
      const words = (line: string) =>
        wordsOf(line).map((word) =>
          word
            .replace(/(^|=)U$/, `$1nbd+unix:///e?socket=${sockets}/rw`)
            .replace(/(^|=)R$/, `$1nbd+unix:///e?socket=${sockets}/ro`)
            .replace(/(?<=[=:"])S(?=$|[,:"])/, `${sockets}/rw`),
        );
      const run = (line: string) => {
        if (side === 'theirs') return pair.runTheirs(words(line));
        const outcome = pair.runOurs(words(line));
        return line.startsWith('info') ? withoutChildren(outcome) : outcome;
      };
      outcomes.push(lines.map((line) => ({ line, ...run(line) })));
    }
    expect(outcomes[1]).toEqual(outcomes[0]);
  }

  test('reading', () => sameOf(READING));
  test.each(WRITING.map((lines) => [lines[0], lines] as const))('%s …', (_first, lines) => sameOf(lines));
});
