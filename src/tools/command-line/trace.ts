/** `-T`, the standard option for tracing (T-GEN-6). It is understood and checked; there are no events of such names. */
import { readFileSync } from 'node:fs';
import { codeOf, errorText } from '../../core/errors.ts';
import { Failure } from '../failure.ts';
import type { Messages } from '../output/stream.ts';
import { keyValues } from './arguments.ts';

const KEYS: readonly string[] = ['enable', 'events', 'file'];

/** Checks one `[enable=]PATTERN[,events=FILE][,file=FILE]`. */
export function traceArgument(text: string, messages: Messages): void {
  const given = keyValues(text, 'enable', (message, hint) => messages.warning(message, hint));
  const unknown = given.find(([key]) => !KEYS.includes(key));
  if (unknown !== undefined) throw new Failure(`Invalid parameter '${unknown[0]}'`);
  for (const [key, value] of given) {
    if (key === 'enable') warnOfEvent(value, messages, '');
    if (key === 'events') warnOfEvents(value, messages);
  }
}

/** Patterns may match nothing; a plain name should exist. */
function warnOfEvent(pattern: string, messages: Messages, place: string): void {
  if (/[*?]/.test(pattern) || (place === '' && pattern === 'help')) return;
  // A dash before it turns an event off.
  const text = `warning: trace event '${pattern.replace(/^-/, '')}' does not exist`;
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
