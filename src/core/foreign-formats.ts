/**
 * Formats without a driver here, by their first bytes (BL-OPEN-15): such an image is not taken for a raw disk, whose content
 * its tables would become.
 */
import { viewOf } from '../bytes/big-endian.ts';

/** QEMU's names of them: an image may be made over one, unchecked. vvfat has no bytes of its own. */
export const FOREIGN_FORMATS: ReadonlySet<string> = new Set(
  'bochs cloop dmg luks parallels qcow qed vhdx vmdk vpc vvfat'.split(' '),
);

/** Texts at the beginning; characters are bytes. */
const SIGNATURES: readonly (readonly [string, string])[] = [
  ['vmdk', 'KDMV'],
  ['vmdk', 'COWD'],
  ['vpc', 'conectix'],
  ['vhdx', 'vhdxfile'],
  ['qed', 'QED\0'],
  ['parallels', 'WithoutFreeSpace'],
  ['parallels', 'WithouFreSpacExt'],
  ['bochs', 'Bochs Virtual HD Image'],
  ['cloop', '#!/bin/sh\n#V2.0 Format\n'],
];
/** With a version behind it, 32 and 16 bits wide: later ones are qcow2's, and a second volume format that QEMU takes for raw. */
const QCOW = 'QFI\xfb';
const LUKS = 'LUKS\xba\xbe';

/** QEMU's name of the format that the file's first bytes, or for dmg its name, are of; undefined: none of these. */
export function foreignFormat(head: Uint8Array, filename: string): string | undefined {
  const text = Array.from(head, (byte) => String.fromCharCode(byte)).join('');
  const known = SIGNATURES.find(([, signature]) => text.startsWith(signature));
  if (known !== undefined) return known[0];
  const view = viewOf(head);
  if (text.startsWith(QCOW) && view.getUint32(4) === 1) return 'qcow';
  if (text.startsWith(LUKS) && view.getUint16(6) === 1) return 'luks';
  if (isVmdkDescriptor(text)) return 'vmdk';
  return filename.length > 4 && filename.endsWith('.dmg') ? 'dmg' : undefined;
}

/** Comments and blank lines, the first of them a comment, and then the version. */
function isVmdkDescriptor(text: string): boolean {
  return text.startsWith('#') && /^(?:(?:#[^\n]*| *\r?)\n)+version=[123]\r?\n/.test(text);
}
