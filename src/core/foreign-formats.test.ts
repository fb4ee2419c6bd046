/** Formats that are known by name only (BL-OPEN-15). */
import { expect, test } from 'vitest';
import { graphOn } from '../../tests/support/sim-disks.ts';
import { SimHost } from '../testing/index.ts';
import { foreignFormat } from './foreign-formats.ts';

/** Characters are bytes. */
function head(text: string): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes.set(Array.from(text, (character) => character.charCodeAt(0)));
  return bytes;
}

const FOREIGN: readonly (readonly [string, string])[] = [
  ['vmdk', 'KDMV\x01\0\0\0'],
  ['vmdk', 'COWD\x01\0\0\0'],
  ['vmdk', '# Disk DescriptorFile\nversion=1\nCID=fffffffe\n'],
  ['vmdk', '# Disk DescriptorFile\r\n\r\n# more\r\n  \r\nversion=3\r\n'],
  ['vpc', 'conectix\0\0\0\x02'],
  ['vhdx', 'vhdxfile'],
  ['qed', 'QED\0'],
  ['qcow', 'QFI\xfb\0\0\0\x01'],
  ['parallels', 'WithoutFreeSpace'],
  ['parallels', 'WithouFreSpacExt'],
  ['bochs', 'Bochs Virtual HD Image'],
  ['luks', 'LUKS\xba\xbe\0\x01'],
  ['cloop', '#!/bin/sh\n#V2.0 Format\nmodprobe cloop'],
];
const OTHERS = [
  '',
  'KDM',
  '#!/bin/sh\necho',
  '# a\nversion=4\n',
  'version=1\n',
  '#\nCID=1\nversion=1\n',
  'LUKS\xba\xbe\0\x02',
];

test.each(FOREIGN)('BL-OPEN-15: %s, by %j', (format, text) => {
  expect(foreignFormat(head(text), 'disk.img')).toBe(format);
});

test.each(OTHERS)('BL-OPEN-15: none by %j', (text) => {
  expect(foreignFormat(head(text), '.dmg')).toBeUndefined();
});

test('BL-OPEN-15: dmg by name', () => {
  expect(foreignFormat(head(''), 'disk.dmg')).toBe('dmg');
});

test.each(FOREIGN)('an image of %s, %j, is no raw disk, unless it is said to be', async (format, text) => {
  const host = new SimHost();
  host.put('/disk', head(text));
  const graph = graphOn(host);
  await expect(graph.open('/disk')).rejects.toMatchObject({
    code: 'ENOTSUP',
    message: expect.stringContaining(`Image is in the format '${format}', which is not supported`),
    hint: "Give the format 'raw' to use the bytes of the file as they are.",
  });
  await using disk = await graph.open('/disk', { format: 'raw' });
  expect(await disk.read(0, 512)).toEqual(head(text));
});

test.each(FOREIGN)('BL-OPEN-16: a disk guessed to be raw does not become one of %s, %j', async (_, text) => {
  const host = new SimHost();
  host.put('/disk', new Uint8Array(1024));
  await using disk = await graphOn(host).open('/disk', { writable: true });
  await expect(disk.write(0, head(text))).rejects.toMatchObject({ code: 'EPERM' });
  expect(host.contents('/disk')).toEqual(new Uint8Array(1024));
});
