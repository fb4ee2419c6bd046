/** Command lines about encrypted images and secrets print what qemu-img prints (T-GEN-13, Q-OPT-5, T-CREATE-2, T-INFO-1). */
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import { secrets } from '../../src/crypto/secrets.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { wordsOf } from './cli-cases.ts';
import { peerMissing, SideBySide, withoutChildren } from './cli-programs.ts';

const S = '--object secret,id=s,data=hunter2';
const KEY = 'A'.repeat(32);
const IV = Buffer.from('B'.repeat(16)).toString('base64');
const named = (rest: string) => `--image-opts driver=qcow2,file.filename=luks.qcow2${rest}`;

const LINES: readonly string[] = [
  'info luks.qcow2',
  'info --output=json luks.qcow2',
  `info ${S} ${named(',encrypt.key-secret=s')}`,
  `info ${named(',encrypt.key-secret=zork')}`,
  `info ${named(',encrypt.format=aes')}`,
  'check luks.qcow2',
  `check ${S} ${named(',encrypt.key-secret=s')}`,
  `check ${S} ${named(',encrypt.key-secret=t')}`,
  `check ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=s,data=wrong ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=s,file=bytes ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=s,file=. ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=s,data=aHVudGVyMg==,format=base64 ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=m,data=${KEY} --object secret,id=s,keyid=m,iv=${IV},data=5LMIqvqZvDF8UUkkR4Zung==,format=base64 ${named(',encrypt.key-secret=s')}`,
  `check --object secret,id=m,data=${KEY} --object secret,id=s,keyid=m,data=AAAA,format=base64 luks.qcow2`,
  'check --object secret,id=m,data=short --object secret,id=s,keyid=m,iv=AAAA,data=x luks.qcow2',
  `map ${S} ${named(',encrypt.key-secret=s')}`,
  `map --output=json ${S} ${named(',encrypt.key-secret=s')}`,
  'measure -O qcow2 --size 1G -o encrypt.format=luks',
  `measure ${S} -O qcow2 --size 1G -o encrypt.format=luks,encrypt.key-secret=s`,
  'create -f qcow2 -o encrypt.format=luks new.qcow2 1M',
  'create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s new.qcow2 1M',
  `create ${S} -f qcow2 -o encrypt.format=zork,encrypt.key-secret=s new.qcow2 1M`,
  `create ${S} -f qcow2 -o encrypt.key-secret=s new.qcow2 1M`,
  `create ${S} -f qcow2 -o encryption=on,encrypt.format=luks,encrypt.key-secret=s new.qcow2 1M`,
  `create ${S} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=zork new.qcow2 1M`,
  `convert ${S} ${named(',encrypt.key-secret=s')} -O raw out.raw`,
  'compare luks.qcow2 out.raw',
  `amend ${S} -o encrypt.state=active ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.new-secret=s ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.state=inactive,encrypt.keyslot=0 ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.state=inactive,encrypt.old-secret=s ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.state=inactive,encrypt.keyslot=3 ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.state=active,encrypt.new-secret=s,encrypt.keyslot=8 ${named(',encrypt.key-secret=s')}`,
  `amend ${S} -o encrypt.key-secret=s ${named(',encrypt.key-secret=s')}`,
];

describe.skipIf(peerMissing !== undefined)(`encryption and secrets${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    const host = nodeHost();
    secrets(host).set('s', 'hunter2');
    const graph = new Graph({ host, drivers: DRIVERS });
    const path = join(pair.ours, 'made.qcow2');
    const options = { 'encrypt.format': 'luks', 'encrypt.key-secret': 's', 'encrypt.iter-time': 1 };
    await createImage(graph, { filename: path, format: 'qcow2', size: 1 << 20, options });
    const disk = await graph.open(path, { writable: true, driverOptions: { 'encrypt.key-secret': 's' } });
    await disk.write(70_000, new Uint8Array(100_000).fill(5));
    await disk.close();
    for (const folder of [pair.ours, pair.theirs]) {
      copyFileSync(path, join(folder, 'luks.qcow2'));
      writeFileSync(join(folder, 'bytes'), Uint8Array.of(0xff, 0xfe));
    }
  });
  afterAll(() => pair?.remove());

  for (const line of LINES) {
    test(`qemu-img ${line}`, async () => {
      const theirs = pair.runTheirs(wordsOf(line));
      const ours = await pair.runOursHere(wordsOf(line));
      expect(line.startsWith('info') ? withoutChildren(ours) : ours).toEqual(theirs);
    });
  }
});
