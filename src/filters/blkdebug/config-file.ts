/** Config files with rules: sections, each one rule, with `key = "value"` lines (BD-10). */
import { BlockError } from '../../core/errors.ts';
import type { OptionTree, OptionValue } from '../../core/options.ts';
import { hasField, parseRule, type Rule, type Section } from './rules.ts';

/** A config file larger than this is none. */
export const CONFIG_MAX = 1 << 20;

interface Group {
  readonly section: Section;
  readonly line: number;
  readonly options: Record<string, OptionValue>;
}

const HEADER_WITH_ID = /^\[([^\]\s"]+)\s+"([^"\]]+)"/;
const HEADER = /^\[([^\]\r\n]+)/;
/** The key goes up to a blank. Without a value in quotes, the value is empty. */
const ENTRY = /^\s*(\S+)(?:\s+=\s*"([^"]*)")?/;
const IDENTIFIER = /^[A-Za-z][A-Za-z0-9\-._]*$/;

/**
 * All inject-error rules, then all set-state rules (BD-12). Throws BlockError EINVAL in the words of QEMU, with file and
 * line as its hint.
 */
export function parseConfig(text: string, filename: string): Rule[] {
  const groups: Group[] = [];
  const ids = new Set<string>();
  text.split('\n').forEach((line, index) => {
    if (line.trim() === '' || line.trimStart().startsWith('#')) return;
    inLine(filename, index + 1, () => {
      if (line.startsWith('[')) groups.push({ section: sectionOf(line, ids), line: index + 1, options: {} });
      else addEntry(groups.at(-1), line);
    });
  });
  const rules = (section: Section) =>
    groups
      .filter((group) => group.section === section)
      .map(({ line, options }) => inLine(filename, line, () => parseRule(section, options as OptionTree)));
  return [...rules('inject-error'), ...rules('set-state')];
}

function sectionOf(line: string, ids: Set<string>): Section {
  const [, name = '', id] = HEADER_WITH_ID.exec(line) ?? HEADER.exec(line) ?? [];
  if (name === '') throw invalid('no group defined');
  if (name !== 'inject-error' && name !== 'set-state') throw invalid(`There is no option group '${name}'`);
  if (id === undefined) return name;
  requireIdentifier(id);
  if (ids.has(`${name} ${id}`)) throw invalid(`Duplicate ID '${id}' for ${name}`);
  ids.add(`${name} ${id}`);
  return name;
}

function requireIdentifier(id: string): void {
  if (IDENTIFIER.test(id)) return;
  throw invalid(
    "Parameter 'id' expects an identifier",
    "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
  );
}

function addEntry(group: Group | undefined, line: string): void {
  if (group === undefined) throw invalid('no group defined');
  const [, key = '', value = ''] = ENTRY.exec(line) ?? [];
  // Another way to write the id.
  if (key === 'id') requireIdentifier(value);
  else if (hasField(group.section, key)) group.options[key] = value;
  else throw invalid(`Invalid parameter '${key}'`);
}

function inLine<T>(filename: string, line: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const place = `${filename}, line ${line}`;
    const hint = error.hint === undefined ? place : `${error.hint}\n${place}`;
    throw new BlockError(error.code, error.message, { hint, cause: error });
  }
}

function invalid(message: string, hint?: string): BlockError {
  return new BlockError('EINVAL', message, { hint });
}
