/** What pictures of all kinds say, and names that may hold anything made fit to be shown. */
import { formatSize } from '../../bytes/size.ts';
import type { PictureBox, PictureLink, PictureNode } from './model.ts';

/** In the order of the permission bits: c onsistent read, w rite, write u nchanged, r esize. */
const LETTERS: readonly (readonly [string, string])[] = [
  ['consistent read', 'c'],
  ['write', 'w'],
  ['write unchanged', 'u'],
  ['resize', 'r'],
];

export const LEGEND = 'c consistent read, w write, u write unchanged, r resize';

/** `cw-r`. */
export function permissionLetters(names: readonly string[]): string {
  return LETTERS.map(([name, letter]) => (names.includes(name) ? letter : '-')).join('');
}

/** Without characters that move a terminal's cursor, end a line, or turn the direction of text. */
export function visible(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (character) => {
      return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
    })
    .replace(/\p{Surrogate}/gu, '\ufffd');
}

/** At most `length` characters: the end of a name tells more than its middle. */
export function shortened(text: string, length: number): string {
  const characters = [...text];
  if (characters.length <= length) return text;
  const head = Math.floor((length - 1) / 3);
  return [...characters.slice(0, head), '…', ...characters.slice(characters.length - (length - 1 - head))].join('');
}

export function titleOf(box: PictureBox): string {
  return box.kind === 'user' ? visible(box.description) : visible(box.driver);
}

/** `20 GiB, 3.2 GiB in use, read-only`; of an overlay that goes when it is closed, `temporary` too. */
export function sizeLine({ length, allocated, writable, temporary }: PictureNode): string {
  const parts = [formatSize(length)];
  if (allocated !== undefined) parts.push(`${formatSize(allocated)} in use`);
  parts.push(writable ? 'writable' : 'read-only');
  if (temporary) parts.push('temporary');
  return parts.join(', ');
}

/** `aligned to 512, at most 2 MiB, best 1 MiB`; undefined: nothing limits it. */
export function limitsLine({ limits }: PictureNode): string | undefined {
  const { requestAlign, transferMax, preferred } = limits;
  const parts: string[] = [];
  if (requestAlign > 1) parts.push(`aligned to ${requestAlign}`);
  if (transferMax !== undefined) parts.push(`at most ${formatSize(transferMax)}`);
  if (preferred !== undefined) parts.push(`best ${formatSize(preferred)}`);
  return parts.length === 0 ? undefined : `requests ${parts.join(', ')}`;
}

/** `file (image)`; of a backing image its name alone. */
export function linkTitle({ name, role }: PictureLink): string {
  const shown = visible(name);
  return role === 'root' || role === 'cow' ? shown : `${shown} (${role})`;
}

/** `needs cw-r, shares c-u-`. */
export function linkPermissions({ needs, shares }: PictureLink): string {
  return `needs ${permissionLetters(needs)}, shares ${permissionLetters(shares)}`;
}
