/** Hostile text: sizes, options, names, command lines. They are parsed or refused, never more. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatSize, parseSize } from '../../src/bytes/size.ts';
import { formatUuid, parseUuid } from '../../src/bytes/uuid.ts';
import { BlockError } from '../../src/core/errors.ts';
import { jsonName, jsonNameOptions, protocolPrefix, stripPrefix } from '../../src/core/filename.ts';
import { flattenOptions, parseKeyValues, takePrefix } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { Getopt, type OptionSpec } from '../../src/tools/command-line/getopt.ts';
import { ObjectList } from '../../src/tools/command-line/objects.ts';
import { OptionList } from '../../src/tools/command-line/option-list.ts';
import { Failure, HelpRequest } from '../../src/tools/failure.ts';
import { graphOf, plainFormat, Storage, storageProtocol } from '../engine/storage.ts';
import { longMode } from '../set-up/seed.ts';

const numRuns = longMode ? 200_000 : 3000;

/** Text of any kind, often made of what parsers look for. */
const word = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: fc.constantFrom(...'0123456789.+-xXabkMGTPE \t,=:/{}"\\\u0000é💿'), maxLength: 30 }),
);

function refusedOrNot<T>(
  work: () => T,
  ...kinds: (typeof BlockError | typeof Failure | typeof HelpRequest)[]
): T | undefined {
  try {
    return work();
  } catch (error) {
    if (kinds.some((kind) => error instanceof kind)) return undefined;
    throw error;
  }
}

describe('sizes (T-SIZE-1)', () => {
  const LIMIT = 2n ** 64n - 1n;

  test('any text is a size in range or one of two problems', () => {
    fc.assert(
      fc.property(word, (text) => {
        const parsed = parseSize(text);
        if (typeof parsed === 'bigint') expect(parsed >= 0n && parsed <= LIMIT).toBe(true);
        else expect(['invalid', 'out-of-range']).toContain(parsed);
      }),
      { numRuns },
    );
  });

  test('what is written as a size is that size, to the nearest byte', () => {
    const suffix = fc.constantFrom(...'kKmMgGtTpPeE');
    fc.assert(
      fc.property(
        fc.bigInt(0n, 2n ** 66n),
        fc.string({ unit: fc.constantFrom(...'0123456789'), maxLength: 25 }),
        suffix,
        (whole, fraction, unit) => {
          // As the C library would: the whole part exactly, the fraction in double precision.
          const shift = 10 * ('kmgtpe'.indexOf(unit.toLowerCase()) + 1);
          const part = Math.round(Number(`0.${fraction}`) * 2 ** shift);
          const expected = (whole << BigInt(shift)) + BigInt(part);
          expect(parseSize(`${whole}.${fraction}${unit}`)).toBe(expected > LIMIT ? 'out-of-range' : expected);
        },
      ),
      { numRuns },
    );
  });

  test('decimal and hexadecimal numbers are themselves', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, LIMIT), (value) => {
        expect(parseSize(`${value}`)).toBe(value);
        expect(parseSize(`0x${value.toString(16)}`)).toBe(value);
        expect(parseSize(`  +${value}b`)).toBe(value);
        if (value > 0n) expect(parseSize(`-${value}`)).toBe('out-of-range');
      }),
      { numRuns },
    );
  });

  test('any number of bytes is shown with at most three digits, as C shows it (T-FMT-1)', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (bytes) => {
        expect(formatSize(bytes)).toMatch(/^(\d{1,3}|\d\.\d{1,2}|\d\d\.\d|0\.\d{1,3}|1e\+03) ([KMGTPE]i)?B$/);
      }),
      { numRuns },
    );
  });
});

describe('option text (T-OPT-1, T-GEN-11)', () => {
  const key = fc.string({ unit: fc.constantFrom(...'abcnode-._09'), minLength: 1, maxLength: 8 });
  const tree = fc.dictionary(key, fc.string({ maxLength: 12 }), { maxKeys: 6 });

  test('what is written out comes back', () => {
    fc.assert(
      fc.property(tree, (given) => {
        const text = Object.entries(given)
          .map(([name, value]) => `${name}=${value.replaceAll(',', ',,')}`)
          .join(',');
        if (text !== '') expect({ ...parseKeyValues(text) }).toEqual({ ...given });
      }),
      { numRuns },
    );
  });

  test('any text is parsed', () => {
    fc.assert(
      fc.property(word, fc.option(key, { nil: undefined }), (text, implied) => {
        for (const value of Object.values(parseKeyValues(text, implied))) expect(typeof value).toBe('string');
      }),
      { numRuns },
    );
  });

  test('an option of a child goes to the child, whatever its name', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.oneof(key, fc.constantFrom('__proto__', 'file.__proto__', 'file.a')), fc.nat()),
        (given) => {
          const { inner, rest } = takePrefix(given, 'file');
          const back = [
            ...Object.entries(inner).map(([name, value]) => [`file.${name}`, value]),
            ...Object.entries(rest),
          ];
          expect(back.sort()).toEqual(Object.entries(given).sort());
        },
      ),
      { numRuns },
    );
  });

  test('-o lists are joined or refused', () => {
    fc.assert(
      fc.property(fc.array(word, { maxLength: 4 }), (texts) => {
        const list = new OptionList();
        for (const text of texts) refusedOrNot(() => list.add(text), Failure);
        expect(typeof list.wantsHelp).toBe('boolean');
        list.tree();
      }),
      { numRuns },
    );
  });

  test('--object is taken or refused', () => {
    const texts = fc.oneof(
      word,
      fc.json().map((text) => `{"qom-type":${text}`),
      fc.json(),
      word.map((text) => `secret,id=a,data=${text}`),
    );
    fc.assert(
      fc.property(texts, (text) => {
        // Files named in it are not what is tested.
        if (!text.includes('file')) refusedOrNot(() => new ObjectList().add(text), BlockError, Failure, HelpRequest);
      }),
      { numRuns },
    );
  });
});

describe('command lines (T-GEN-5)', () => {
  const TABLE: readonly OptionSpec[] = [
    { short: 'f', long: 'format', argument: 'FMT', help: '' },
    { short: 'F', long: 'force', help: '' },
    { long: 'object', argument: 'X', help: '' },
    { short: 'q', help: '' },
  ];
  const dashed = fc.oneof(
    fc.constantFrom(
      '-',
      '--',
      '-f',
      '-q',
      '-fx',
      '-qf',
      '--f',
      '--for',
      '--format',
      '--format=',
      '--force=1',
      '--object',
      '-Z',
      '--zz',
      'a',
    ),
    fc.string({ unit: fc.constantFrom(...'-fFqZ=ob'), maxLength: 8 }),
    word,
  );

  function parse(words: readonly string[], stopAtOperand: boolean) {
    const getopt = new Getopt(['info', ...words], TABLE, { stopAtOperand });
    const options: string[] = [];
    const most = words.join('').length + words.length + 1;
    for (let step = 0; step <= most; step++) {
      const parsed = getopt.next();
      if (parsed === undefined) return { options, operands: getopt.operands(), wrong: false };
      if (parsed.kind !== 'option') return { options, operands: [], wrong: true };
      options.push(`${parsed.key}=${parsed.value}`);
    }
    throw new Error('the command line has no end');
  }

  test('any words are parsed in as many steps as there are letters', () => {
    fc.assert(
      fc.property(fc.array(dashed, { maxLength: 8 }), fc.boolean(), (words, stop) => {
        const { operands, wrong } = parse(words, stop);
        if (!wrong) for (const operand of operands) expect(words).toContain(operand);
      }),
      { numRuns },
    );
  });

  test('operands come in their order, wherever they stand between options', () => {
    const operand = fc.string({ minLength: 1 }).filter((text) => !text.startsWith('-') || text === '-');
    const item = fc.oneof(
      operand.map((text) => [text]),
      fc.constantFrom(['-q'], ['-f', 'raw'], ['--force'], ['--obj=x']),
    );
    fc.assert(
      fc.property(fc.array(item, { maxLength: 8 }), (items) => {
        const { operands, options } = parse(items.flat(), false);
        const plain = items.filter(([first = '']) => !first.startsWith('-') || first === '-').flat();
        expect(operands).toEqual(plain);
        expect(options.length).toBe(items.length - plain.length);
      }),
      { numRuns },
    );
  });
});

describe('file names', () => {
  test('any name has a prefix or none, and loses its own prefix once', () => {
    fc.assert(
      fc.property(word, word, (base, name) => {
        const prefix = protocolPrefix(base);
        if (prefix !== undefined) expect(base.startsWith(`${prefix}:`) && !prefix.includes('/')).toBe(true);
        expect(protocolPrefix(stripPrefix(`file:${name}`, 'file'))).toBeUndefined();
      }),
      { numRuns },
    );
  });

  test('json: names are options or refused (BL-NAME-8)', () => {
    fc.assert(
      fc.property(fc.oneof(word, fc.json()), (text) => {
        const tree = refusedOrNot(() => jsonNameOptions(`json:${text}`), BlockError);
        for (const value of Object.values(tree ?? {})) expect(value === null || typeof value !== 'object').toBe(true);
      }),
      { numRuns },
    );
  });

  test('names nested too deep to follow are refused, not a fault', () => {
    const nested = (depth: number) => `json:${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
    expect(Object.keys(jsonNameOptions(nested(50)) ?? {})).toEqual([new Array(50).fill('a').join('.')]);
    for (const depth of [1000, 20_000, 200_000]) expect(() => jsonNameOptions(nested(depth))).toThrow(BlockError);
  });

  test('options written as a json: name come back', () => {
    const value = fc.oneof(fc.string({ unit: 'grapheme' }), fc.nat(), fc.boolean(), fc.constant(null));
    const key = fc.string({ unit: fc.constantFrom(...'abcdefgh-'), minLength: 1, maxLength: 6 });
    const options = fc.dictionary(key, fc.oneof(value, fc.dictionary(key, value, { minKeys: 1 })));
    fc.assert(
      fc.property(options, (given) => {
        const plain = Object.fromEntries(Object.entries(given));
        const name = jsonName(plain);
        expect(/^[ -~]*$/.test(name)).toBe(true);
        expect({ ...jsonNameOptions(name) }).toEqual({ ...flattenOptions(plain) });
      }),
      { numRuns },
    );
  });

  test('opening any name or tree works or is refused, and leaves nothing open', async () => {
    const graph = graphOf([
      storageProtocol(new Storage(1024), 'file'),
      storageProtocol(new Storage(1024)),
      plainFormat,
      raw,
    ]);
    const keys = fc.constantFrom(
      'driver',
      'file',
      'file.driver',
      'file.filename',
      'size',
      'offset',
      'node-name',
      'read-only',
      'cache.direct',
      'discard',
      '__proto__',
    );
    const values = fc.oneof(
      fc.constantFrom('raw', 'plain', 'store', 'file', 'on', 'off', '512', '1k', ''),
      word,
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
    );
    const source = fc.oneof(word, fc.dictionary(keys, values, { maxKeys: 6 }));
    await fc.assert(
      fc.asyncProperty(source, fc.boolean(), async (given, writable) => {
        try {
          const disk = await graph.open(given, { writable });
          await disk.read(0, Math.min(disk.length, 10));
          await disk.close();
        } catch (error) {
          if (!(error instanceof BlockError)) throw error;
        }
        expect(graph.nodes()).toEqual([]);
      }),
      { numRuns },
    );
  });
});

test('UUIDs: any sixteen bytes have a text that gives them back; any text is one or none', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), word, (bytes, text) => {
      expect([...(parseUuid(formatUuid(bytes)) ?? [])]).toEqual([...bytes]);
      expect(parseUuid(text)?.length ?? 16).toBe(16);
    }),
    { numRuns },
  );
});
