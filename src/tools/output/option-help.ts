/** `-o help`: options of a format (T-OPT-2). */
import { creationDrivers, creationSchema } from '../../core/create.ts';
import type { DriverSpec } from '../../core/driver.ts';
import type { Graph } from '../../core/graph.ts';
import type { AnySchema } from '../../core/options.ts';
import type { Dialect } from '../dialect.ts';

const NAME_WIDTH = 22;

/** With a target's name, the options of its protocol are there too. Throws BlockError for what cannot be created. */
export async function creationHelp(
  graph: Graph,
  dialect: Dialect,
  format: string,
  filename: string | undefined,
): Promise<string> {
  const { spec, protocol } = await creationDrivers(graph, format, filename);
  const lines = optionLines(creationSchema(dialect.qemu ? withoutBeyond(spec) : spec, protocol));
  if (filename !== undefined) return `Supported options:\n${lines}`;
  return (
    `Supported ${format} options:\n${lines}\n` +
    'The protocol level may support further options.\nSpecify the target filename to include those options.\n'
  );
}

/** A line for each option, sorted by name. */
export function optionLines(schema: AnySchema): string {
  return Object.entries(schema)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, option]) => `  ${`${name}=<${option.type}>`.padEnd(NAME_WIDTH)} - ${option.help}\n`)
    .join('');
}

/** The driver with the creation options that QEMU's has too: its own come before the protocol's of the same name. */
function withoutBeyond(spec: DriverSpec): DriverSpec {
  if (spec.create === undefined) return spec;
  const options = Object.entries(spec.create.options as AnySchema).filter(([, option]) => !option.beyond);
  return { ...spec, create: { ...spec.create, options: Object.fromEntries(options) } } as DriverSpec;
}
