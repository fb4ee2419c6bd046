/** docs/drivers/*.md, from the option schemas of the drivers. */
import type { DriverSpec } from '../../src/core/driver.ts';
import type { AnySchema, Option } from '../../src/core/options.ts';

const TYPES = { str: 'text', num: 'number', size: 'size', 'bool (on/off)': '`on` or `off`' } as const;

const escaped = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function typeOf(option: Option<unknown>): string {
  return option.values === undefined ? TYPES[option.type] : option.values.map((value) => `\`${value}\``).join(', ');
}

function defaultOf({ fallback }: Option<unknown>): string {
  if (fallback === undefined || fallback === null || fallback === '') return '';
  if (typeof fallback === 'boolean') return fallback ? '`on`' : '`off`';
  return `\`${String(fallback)}\``;
}

function optionTable(title: string, schema: AnySchema | undefined, none: string): string[] {
  const entries = Object.entries(schema ?? {});
  if (entries.length === 0) return [`## ${title}`, '', none, ''];
  const rows = entries.map(([name, option]) => {
    const notes = option.beyond ? ' Not in QEMU.' : '';
    return `| \`${name}\` | ${typeOf(option)} | ${defaultOf(option)} | ${escaped(option.help)}.${notes} |`;
  });
  return [`## ${title}`, '', '| option | value | default | meaning |', '| --- | --- | --- | --- |', ...rows, ''];
}

/** What `amend` can change. */
function amendTable(driver: DriverSpec): string[] {
  const schema = driver.kind === 'format' ? driver.amendOptions : undefined;
  return schema === undefined ? [] : optionTable('Amending', schema, '');
}

function driverPage(driver: DriverSpec): string {
  const abilities = [
    driver.kind === 'format' && driver.probe !== undefined ? 'recognised by content' : undefined,
    driver.create !== undefined ? 'can be created' : undefined,
    driver.kind === 'format' && driver.measure !== undefined ? 'can be measured' : undefined,
    driver.kind === 'protocol' && driver.growable === true ? 'grows when written past its end' : undefined,
  ].filter((it) => it !== undefined);
  const lines = [
    `# \`${driver.name}\``,
    '',
    "<!-- Made by `npm run docs` from the driver's option schema. -->",
    '',
    `${driver.summary}. A ${driver.kind}${abilities.length > 0 ? `: ${abilities.join(', ')}` : ''}.`,
    '',
    ...optionTable('Opening', driver.options as AnySchema, 'No options of its own.'),
    ...optionTable('Creating', driver.create?.options as AnySchema | undefined, 'Nothing to choose.').filter(
      () => driver.create !== undefined,
    ),
    ...amendTable(driver),
  ];
  return lines.join('\n');
}

/** Pages by file name. */
export function driverPages(drivers: readonly DriverSpec[]): Map<string, string> {
  return new Map(drivers.map((driver) => [`docs/drivers/${driver.name}.md`, driverPage(driver)]));
}
