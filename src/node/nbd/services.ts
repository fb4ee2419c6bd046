/** Ports by the names of their services, from the file that the system's look-up reads. */
import { readFileSync } from 'node:fs';

/** The TCP port of a service, by its name or another one of its names, such as `nbd`; undefined where there is none. */
export function servicePort(name: string): number | undefined {
  const { SystemRoot = 'C:\\Windows' } = process.env;
  const file = process.platform === 'win32' ? `${SystemRoot}\\System32\\drivers\\etc\\services` : '/etc/services';
  try {
    return portIn(readFileSync(file, 'utf8'), name);
  } catch {
    return undefined;
  }
}

/** Lines are `name port/protocol alias… # comment`. */
export function portIn(services: string, name: string): number | undefined {
  for (const line of services.split('\n')) {
    const [official, port = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    const number = /^(\d+)\/tcp$/.exec(port)?.[1];
    if (number !== undefined && (official === name || aliases.includes(name))) return Number(number);
  }
  return undefined;
}
