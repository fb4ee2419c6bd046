/** The documents that are made from the code: path from the project's root, and text. */
import { DRIVERS } from '../../src/drivers.ts';
import { commands } from '../../src/tools/commands/index.ts';
import { commandsOf } from '../../src/tools/io/table.ts';
import { commandPage } from './command-page.ts';
import { driverPages } from './driver-pages.ts';

export async function generatedPages(): Promise<Map<string, string>> {
  const all = await Promise.all(commands.map((entry) => entry.load()));
  return new Map([
    ...driverPages(DRIVERS),
    ['docs/commands.md', commandPage(all, commandsOf({ name: 'diskwright', qemu: false }))],
  ]);
}
