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

const HEADER = /^\s*\[\s*([^\s"\]]+)(?:\s+"([^"]*)")?\s*\]\s*$/;
const ENTRY = /^\s*([^\s=]+)\s*=\s*"(.*)"\s*$/;

/** All inject-error rules, then all set-state rules (BD-12). Throws BlockError EINVAL that names file and line. */
export function parseConfig(text: string, filename: string): Rule[] {
  const groups: Group[] = [];
  text.split('\n').forEach((line, index) => {
    const fail = (message: string) => new BlockError('EINVAL', `${filename}:${index + 1}: ${message}`);
    if (line.trim() === '' || line.trimStart().startsWith('#')) return;
    const header = HEADER.exec(line);
    if (header) {
      const name = header[1] ?? '';
      if (name !== 'inject-error' && name !== 'set-state') throw fail(`There is no option group '${name}'`);
      groups.push({ section: name, line: index + 1, options: {} });
      return;
    }
    const entry = ENTRY.exec(line);
    if (!entry) throw fail('Cannot parse the line: it is neither [section] nor key = "value"');
    const group = groups.at(-1);
    if (group === undefined) throw fail('no group defined');
    const [, key = '', value = ''] = entry;
    if (!hasField(group.section, key)) throw fail(`Invalid parameter '${key}'`);
    group.options[key] = value;
  });
  const rules = (section: Section) =>
    groups.filter((group) => group.section === section).map((group) => ruleOf(group, filename));
  return [...rules('inject-error'), ...rules('set-state')];
}

function ruleOf({ section, line, options }: Group, filename: string): Rule {
  try {
    return parseRule(section, options as OptionTree);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError('EINVAL', `${filename}:${line}: ${error.message}`, { cause: error });
  }
}
