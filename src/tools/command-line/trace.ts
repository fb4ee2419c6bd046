/** `-T`, the standard option for tracing (T-GEN-6). It is understood and checked; there are no events of such names. */
import { readFileSync } from 'node:fs';
import { codeOf, errorText } from '../../core/errors.ts';
import { Failure } from '../failure.ts';
import type { Messages } from '../output/stream.ts';

/** Checks one `[enable=]PATTERN[,events=FILE][,file=FILE]`. */
export function traceArgument(text: string, messages: Messages): void {
  const items = text.replaceAll(',,', '\0').split(',');
  if (items.length > 1 && items.at(-1) === '') items.pop();
  items.forEach((item, index) => {
    const equals = item.indexOf('=');
    const value = item.slice(equals + 1).replaceAll('\0', ',');
    const key = equals < 0 ? (index === 0 ? 'enable' : item) : item.slice(0, equals);
    if (key === 'enable') warnOfEvent(value, messages, '');
    else if (key === 'events') warnOfEvents(value, messages);
    else if (key !== 'file') throw new Failure(`Invalid parameter '${key}'`);
  });
}

/** Patterns may match nothing; a plain name should exist. */
function warnOfEvent(pattern: string, messages: Messages, place: string): void {
  if (/[*?]/.test(pattern) || (place === '' && pattern === 'help')) return;
  const text = `warning: trace event '${pattern}' does not exist`;
  if (place === '') messages.error(text);
  else messages.errorAt(place, text);
}

function warnOfEvents(file: string, messages: Messages): void {
  let lines: string[];
  try {
    lines = readFileSync(file, 'utf8').split('\n');
  } catch (error) {
    throw new Failure(errorText(codeOf(error)), { place: file });
  }
  for (const [index, line] of lines.entries()) {
    const pattern = line.trim();
    if (pattern !== '' && !pattern.startsWith('#')) warnOfEvent(pattern, messages, `${file}:${index + 1}`);
  }
}
