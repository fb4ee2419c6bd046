import { describe, expect, test } from 'vitest';
import { Call, findCommand, type IoCommand, splitLine, usageLine } from './command.ts';
import { CommandFailure } from './failure.ts';
import { commandsOf } from './table.ts';

const OURS = commandsOf({ name: 'diskwright', qemu: false });
const THEIRS = commandsOf({ name: 'qemu-io', qemu: true });

function commandNamed(name: string): IoCommand {
  const command = findCommand(OURS, name);
  if (command === undefined) throw new Error(`no command ${name}`);
  return command;
}

describe('lines (T-IO-4)', () => {
  test.each([
    ['write 0 512', ['write', '0', '512']],
    ['  read   -C  0  ', ['read', '-C', '0']],
    ['', []],
    ['   ', []],
    ['write -P "3 4"', ['write', '-P', '"3', '4"']],
    ['\tlength', ['\tlength']],
  ])('%j', (line, words) => {
    expect(splitLine(line)).toEqual(words);
  });
});

describe('options (T-IO-4, T-IO-6)', () => {
  const read = (line: string) => {
    const [name = '', ...words] = splitLine(line);
    return new Call(commandNamed(name), name, words).read();
  };

  test('in any place, bundled, attached', () => {
    const given = read('write 0 -zu 512 -P3 --  -q');
    expect(['z', 'u', 'P', 'q'].map((letter) => given.has(letter))).toEqual([true, true, true, false]);
    expect(given.operands).toEqual(['0', '512', '-q']);
  });

  test.each([
    ['w -Q 0 1', "w: invalid option -- 'Q'"],
    ['write 0 1 -P', "write: option requires an argument -- 'P'"],
    ['read --foo 0 1', "read: invalid option -- '-'"],
  ])('%s: %s, and the usage line', (line, complaint) => {
    expect(() => read(line)).toThrow(CommandFailure);
    try {
      read(line);
    } catch (error) {
      expect((error as CommandFailure).details).toEqual({ complaint, usage: true });
    }
  });

  test('handlers are called in the order of the words', () => {
    const order: string[] = [];
    const note = (letter: string) => (value: string) => void order.push(letter + value);
    new Call(commandNamed('write'), 'write', ['-s', 'x', '-P', '1', '-s', 'y']).read({ P: note('P'), s: note('s') });
    expect(order).toEqual(['sx', 'P1', 'sy']);
  });
});

describe('the table (T-IO-7)', () => {
  test('is sorted, and every command has a name and an alias of its own', () => {
    const names = OURS.map(({ name }) => name);
    expect(names).toEqual([...names].sort());
    const all = OURS.flatMap(({ name, alias }) => (alias === undefined ? [name] : [name, alias]));
    expect(new Set(all).size).toBe(all.length);
  });

  test('usage lines', () => {
    expect(usageLine(commandNamed('map'))).toBe('map  -- prints the allocated areas of a file');
    expect(usageLine(commandNamed('quit'), 'q')).toBe('q -- exit the program');
    expect(usageLine(commandNamed('write'))).toBe(
      'write [-bcCfnqruz] [-P pattern | -s source_file] off len -- writes a number of bytes at a specified offset',
    );
  });

  test("what is ours alone is not in qemu-io's", () => {
    const extra = OURS.filter((command) => !THEIRS.includes(command)).map(({ name }) => name);
    expect(extra).toEqual(['fault', 'mark']);
  });

  test('every option letter is in the help of its command', () => {
    for (const { name, letters = '', details = '', usage = '' } of OURS) {
      for (const [letter] of letters.matchAll(/\w/g)) {
        const told = details.includes(`\n -${letter}, -- `);
        expect([name, usage, letter, told]).toEqual([name, usage, letter, true]);
      }
    }
  });
});
