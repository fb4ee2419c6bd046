/** All commands, sorted; each is loaded when it is wanted, which keeps the start short. */
import type { Command } from '../command.ts';

export interface CommandEntry {
  readonly name: string;
  load(): Promise<Command>;
}

export const commands: readonly CommandEntry[] = [
  { name: 'amend', load: async () => (await import('./amend.ts')).amendCommand },
  { name: 'bench', load: async () => (await import('./bench.ts')).benchCommand },
  { name: 'bitmap', load: async () => (await import('./bitmap.ts')).bitmapCommand },
  { name: 'check', load: async () => (await import('./check.ts')).checkCommand },
  { name: 'checksum', load: async () => (await import('./checksum.ts')).checksumCommand },
  { name: 'commit', load: async () => (await import('./commit.ts')).commitCommand },
  { name: 'compact', load: async () => (await import('./compact.ts')).compactCommand },
  { name: 'compare', load: async () => (await import('./compare.ts')).compareCommand },
  { name: 'convert', load: async () => (await import('./convert.ts')).convertCommand },
  { name: 'create', load: async () => (await import('./create.ts')).createCommand },
  { name: 'crashlab', load: async () => (await import('./crashlab.ts')).crashlabCommand },
  { name: 'dd', load: async () => (await import('./dd.ts')).ddCommand },
  { name: 'graph', load: async () => (await import('./graph.ts')).graphCommand },
  { name: 'info', load: async () => (await import('./info.ts')).infoCommand },
  { name: 'io', load: async () => (await import('./io.ts')).ioCommand },
  { name: 'map', load: async () => (await import('./map.ts')).mapCommand },
  { name: 'measure', load: async () => (await import('./measure.ts')).measureCommand },
  { name: 'mount', load: async () => (await import('./mount.ts')).mountCommand },
  { name: 'rebase', load: async () => (await import('./rebase.ts')).rebaseCommand },
  { name: 'replay', load: async () => (await import('./replay.ts')).replayCommand },
  { name: 'resize', load: async () => (await import('./resize.ts')).resizeCommand },
  { name: 'serve', load: async () => (await import('./serve.ts')).serveCommand },
  { name: 'snapshot', load: async () => (await import('./snapshot.ts')).snapshotCommand },
];
