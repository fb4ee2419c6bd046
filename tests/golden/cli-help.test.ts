/** The help texts, whole. After a wanted change: `npx vitest run tests/golden -u`. */
import { describe, expect, test } from 'vitest';
import { commands } from '../../src/tools/commands/index.ts';
import { helpText } from '../../src/tools/output/help.ts';

const OURS = { name: 'diskwright', qemu: false };

describe('help', () => {
  test('of diskwright', async () => {
    await expect(await helpText(OURS, undefined)).toMatchFileSnapshot('cli-help/diskwright.txt');
  });

  test.each(commands.map(({ name, load }) => ({ name, load })))('of diskwright $name', async ({ name, load }) => {
    await expect(await helpText(OURS, await load())).toMatchFileSnapshot(`cli-help/${name}.txt`);
  });

  test('of diskwright-img', async () => {
    const text = await helpText({ name: 'qemu-img', qemu: true }, undefined);
    await expect(text.replace(/\(diskwright .*\)/, '(diskwright VERSION)')).toMatchFileSnapshot(
      'cli-help/diskwright-img.txt',
    );
  });

  test('lines fit a terminal, but for usage lines and that of the formats', async () => {
    for (const { load } of commands) {
      const text = await helpText(OURS, await load());
      const long = text.split('\n').filter((line) => line.length > 120 && !line.startsWith('Supported formats: '));
      expect(long).toEqual([]);
    }
  });

  test('every option of every command is handled or looked up by its command', async () => {
    const { readFileSync } = await import('node:fs');
    for (const { name, load } of commands) {
      const command = await load();
      const sources = [`src/tools/commands/${name}.ts`, ...(MORE_SOURCES[name] ?? [])]
        .concat(['src/tools/open-image.ts', 'src/tools/command.ts', 'src/tools/output/progress.ts'])
        .map((path) => readFileSync(path, 'utf8'))
        .join('\n');
      for (const { long, short, unavailable } of command.options) {
        const key = long ?? short ?? '';
        if (unavailable) continue;
        expect([name, key, sources.includes(`'${key}'`) || sources.includes(` ${key}: (`)]).toEqual([name, key, true]);
      }
    }
  });
});

const MORE_SOURCES: Readonly<Record<string, readonly string[]>> = {
  convert: ['src/tools/convert/images.ts', 'src/tools/convert/settings.ts'],
  io: ['src/tools/io/options.ts'],
};
