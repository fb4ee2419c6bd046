/** LUKS1 volumes by themselves: headers that cannot be, passphrases, key slots, and how much work is done for them. */
import { describe, expect, test } from 'vitest';
import { luksKey } from '../../tests/support/luks-bytes.ts';
import { BlockError } from '../core/errors.ts';
import { nodeCrypto } from '../node/crypto.ts';
import { SimHost } from '../testing/index.ts';
import { ITERATIONS_MIN, iterationsFor } from './calibrate.ts';
import { type LuksStorage, openLuks, unlock } from './luks.ts';
import { decodeLuksHeader, encodeLuksHeader } from './luks-header.ts';
import { createLuks, DEFAULT_LUKS_PLAN, luksLength, planLuks } from './luks-new.ts';
import { prepareSlots, type SlotChange } from './luks-slots.ts';

const crypto = nodeCrypto();
const host = new SimHost();
const utf8 = (text: string) => new TextEncoder().encode(text);

function storage(bytes: Uint8Array): LuksStorage {
  return {
    length: bytes.length,
    read: async (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
    write: async (offset, source) => bytes.set(source, offset),
    flush: async () => {},
  };
}

const made = (async () => {
  const bytes = new Uint8Array(luksLength(planLuks(DEFAULT_LUKS_PLAN)));
  const key = await createLuks(host, crypto, {
    plan: DEFAULT_LUKS_PLAN,
    passphrase: utf8('first'),
    storage: storage(bytes),
  });
  return { bytes, key };
})();

async function volume() {
  const bytes = (await made).bytes.slice();
  return { bytes, volume: await openLuks(storage(bytes)) };
}

describe('new volumes (Q-CRYPT-4)', () => {
  test('have the size and places that the rule gives, and at least 1000 iterations', async () => {
    const { bytes } = await made;
    const header = decodeLuksHeader(bytes);
    expect(bytes.length).toBe(2_068_480);
    expect(header.slots.map(({ materialOffset }) => materialOffset * 512)).toEqual(
      Array.from({ length: 8 }, (_, i) => 4096 + i * 258_048),
    );
    expect(header.slots[0]).toMatchObject({ active: true, iterations: ITERATIONS_MIN });
    expect(header).toMatchObject({
      cipher: 'aes',
      mode: 'xts-plain64',
      hash: 'sha256',
      keyBytes: 64,
      iterations: 1000,
    });
    expect(header.uuid).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(encodeLuksHeader(header)).toEqual(bytes.slice(0, 592));
  });

  test('open with their passphrase, for others too, and with no other (Q-CRYPT-3)', async () => {
    const { bytes, key } = await made;
    expect(Buffer.from(luksKey(bytes, 'first') ?? []).equals(key)).toBe(true);
    const opened = await openLuks(storage(bytes));
    expect(await unlock(crypto, opened, utf8('first'))).toEqual(key);
    await expect(unlock(crypto, opened, utf8('second'))).rejects.toThrow('Invalid password, cannot unlock any keyslot');
  });

  test('iterations follow the time wanted and the machine’s speed; no wanted time is too short or ever too long', async () => {
    let now = 0;
    // 1000 iterations a millisecond.
    const timed = {
      ...crypto,
      pbkdf2: async ({ iterations }: { iterations: number }) => {
        now += iterations / 1000;
        return new Uint8Array(64);
      },
    };
    const clocked = { ...host, clock: { ...host.clock, now: () => now } } as unknown as SimHost;
    const cost = { hash: 'sha256', length: 64 } as const;
    expect(await iterationsFor(clocked, timed, cost, 2000, 1e9)).toBe(2_000_000);
    expect(await iterationsFor(clocked, timed, cost, 0, 1e9)).toBe(1000);
    await expect(iterationsFor(clocked, timed, cost, 1e10, 2 ** 25)).rejects.toThrow(
      'PBKDF iterations 10000000000000 too large to scale: Numerical result out of range',
    );
  });

  test.each([
    [{ cipherAlg: 'zork' }, "Parameter 'cipher-alg' does not accept value 'zork'"],
    [{ cipherMode: 'zork' }, "Parameter 'cipher-mode' does not accept value 'zork'"],
    [{ ivgenAlg: 'zork' }, "Parameter 'ivgen-alg' does not accept value 'zork'"],
    [{ ivgenHashAlg: 'zork' }, "Parameter 'ivgen-hash-alg' does not accept value 'zork'"],
    [{ hashAlg: 'zork' }, "Parameter 'hash-alg' does not accept value 'zork'"],
    // Its material would end within a sector.
    [{ cipherAlg: 'aes-192', cipherMode: 'cbc' }, "Algorithm 'aes' with key size 24 bytes not supported"],
  ])('%j: %s', (change, message) => {
    expect(() => planLuks({ ...DEFAULT_LUKS_PLAN, ...change })).toThrow(message);
  });

  test.each([
    [{ cipherAlg: 'cast5-128', cipherMode: 'cbc' }, "Algorithm 'cast5' with key size 16 bytes not supported"],
    [
      { cipherAlg: 'serpent-256', ivgenAlg: 'essiv', ivgenHashAlg: 'sha384' },
      'No Serpent cipher with key size 48 available',
    ],
    [{ ivgenAlg: 'essiv', ivgenHashAlg: 'sha1' }, 'No AES cipher with key size 20 available'],
  ])('%j: %s, before anything is written', async (change, message) => {
    const untouched = { ...storage(new Uint8Array(0)), write: () => expect.unreachable() };
    const plan = { ...DEFAULT_LUKS_PLAN, ...change };
    await expect(createLuks(host, crypto, { plan, passphrase: utf8('x'), storage: untouched })).rejects.toThrow(
      message,
    );
  });
});

const SLOT = (index: number) => 208 + index * 48;
const u32 = (value: number) => Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
const name = (text: string) => Uint8Array.from(Buffer.alloc(32).fill(text, 0, Buffer.byteLength(text)));

describe('headers that cannot be are refused in qemu-img’s words (Q-CRYPT-2)', () => {
  const cases: readonly (readonly [string, readonly (readonly [number, Uint8Array])[], string])[] = [
    ['magic', [[0, utf8('X')]], 'Volume is not in LUKS format'],
    ['version', [[7, Uint8Array.of(2)]], 'LUKS version 2 is not supported'],
    ['cipher', [[8, name('foo')]], "Algorithm 'foo' with key size 32 bytes not supported"],
    ['cipher without end', [[8, new Uint8Array(32).fill(97)]], 'LUKS header cipher name is not NUL terminated'],
    ['mode without end', [[40, new Uint8Array(32).fill(97)]], 'LUKS header cipher mode is not NUL terminated'],
    ['hash without end', [[72, new Uint8Array(32).fill(97)]], 'LUKS header hash spec is not NUL terminated'],
    ['no dash', [[40, name('xts')]], "Unexpected cipher mode string format 'xts'"],
    ['mode', [[40, name('foo-plain64')]], "Cipher mode 'foo' not supported"],
    ['generator', [[40, name('xts-foo')]], "IV generator 'foo' not supported"],
    ['hash of essiv', [[40, name('xts-essiv')]], 'Missing IV generator hash specification'],
    ['bad hash of essiv', [[40, name('cbc-essiv:foo')]], "Hash algorithm 'foo' not supported"],
    ['hash', [[72, name('xx')]], "Hash algorithm 'xx' not supported"],
    ['payload', [[104, u32(1)]], 'LUKS payload is overlapping with the header'],
    ['payload in a slot', [[104, u32(4039)]], 'Keyslot 7 is overlapping with the encrypted payload'],
    ['no key', [[108, u32(0)]], "Algorithm 'aes' with key size 0 bytes not supported"],
    ['odd key', [[108, u32(63)]], "Algorithm 'aes' with key size 31 bytes not supported"],
    ['long key', [[108, u32(65)]], 'Keyslots 0 and 1 are overlapping in the header'],
    ['endless key', [[108, u32(0xffffffff)]], 'Keyslot 0 is overlapping with the encrypted payload'],
    ['no iterations', [[164, u32(0)]], 'LUKS key iteration count is zero'],
    ['state', [[SLOT(5), u32(5)]], 'Keyslot 5 state (active/disable) is corrupted'],
    ['no iterations of a slot', [[SLOT(0) + 4, u32(0)]], 'Keyslot 0 iteration count is zero'],
    ['material in the header', [[SLOT(0) + 40, u32(7)]], 'Keyslot 0 is overlapping with the LUKS header'],
    ['material in the payload', [[SLOT(0) + 40, u32(4040)]], 'Keyslot 0 is overlapping with the encrypted payload'],
    ['material over another', [[SLOT(0) + 40, u32(3000)]], 'Keyslots 0 and 5 are overlapping in the header'],
    ['stripes', [[SLOT(1) + 44, u32(1)]], 'Keyslot 1 is corrupted (stripes 1 != 4000)'],
  ];
  test.each(cases)('%s', async (_name, patches, message) => {
    const bytes = (await made).bytes.slice();
    for (const [at, value] of patches) bytes.set(value, at);
    const error = await openLuks(storage(bytes)).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(BlockError);
    expect((error as BlockError).message).toBe(message);
  });

  test('a header that ends before its end, or before its material', async () => {
    const { bytes } = await made;
    await expect(openLuks(storage(bytes.slice(0, 591)))).rejects.toThrow(
      'Request for data outside of extension header',
    );
    const short = await openLuks(storage(bytes.slice(0, 592)));
    await expect(unlock(crypto, short, utf8('first'))).rejects.toThrow('Request for data outside of extension header');
  });

  test('what is known, and not implemented, can be told of, not used', async () => {
    const bytes = (await made).bytes.slice();
    bytes.set(name('cast5'), 8);
    bytes.set(name('cbc-plain64'), 40);
    bytes.set(u32(16), 108);
    const opened = await openLuks(storage(bytes));
    expect(opened.algorithms).toMatchObject({ cipher: 'cast5', cipherKeyBytes: 16 });
    const message = "Algorithm 'cast5' with key size 16 bytes not supported";
    await expect(unlock(crypto, opened, utf8('first'))).rejects.toMatchObject({ code: 'ENOTSUP', message });
  });

  test('as many iterations as a header can ask for are not made', async () => {
    const never = { ...crypto, pbkdf2: () => expect.unreachable() };
    for (const at of [164, SLOT(0) + 4]) {
      const bytes = (await made).bytes.slice();
      bytes.set(u32(0xffffffff), at);
      const opened = await openLuks(storage(bytes));
      await expect(unlock(never, opened, utf8('first'))).rejects.toThrow(/^Keyslot 0 takes \d+ iterations to try/);
    }
  });
});

describe('key slots (Q-AM-5)', () => {
  const change = async (on: Awaited<ReturnType<typeof volume>>, what: SlotChange, force = false) => {
    const step = await prepareSlots({ host, crypto, volume: on.volume, force }, what);
    await step();
  };
  const add = (text: string, slot?: number): SlotChange => ({
    state: 'active',
    newPassphrase: utf8(text),
    passphrase: utf8('first'),
    slot,
    iterTimeMs: 1,
  });
  const erase = (text: string | undefined, slot?: number): SlotChange => ({
    state: 'inactive',
    oldPassphrase: text === undefined ? undefined : utf8(text),
    slot,
  });
  const opens = (bytes: Uint8Array, text: string) => luksKey(bytes, text) !== undefined;

  test('further passphrases open the same volume, and are taken away so that they never do again', async () => {
    const on = await volume();
    await change(on, add('second'));
    await change(on, add('third', 6));
    expect(['first', 'second', 'third', 'fourth'].map((text) => opens(on.bytes, text))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    const slots = decodeLuksHeader(on.bytes).slots.map(({ active }) => active);
    expect(slots).toEqual([true, true, false, false, false, false, true, false]);
    const kept = on.bytes.slice();
    await change(on, erase('second'));
    await change(on, erase(undefined, 6));
    expect(['first', 'second', 'third'].map((text) => opens(on.bytes, text))).toEqual([true, false, false]);
    // An old header does not bring them back.
    on.bytes.set(kept.subarray(0, 592));
    expect(['first', 'second', 'third'].map((text) => opens(on.bytes, text))).toEqual([true, false, false]);
  });

  test.each<[string, SlotChange, string]>([
    ['a slot that there is not', add('x', 8), 'Invalid keyslot 8 specified, must be between 0 and 7'],
    ['a slot in use', add('x', 0), 'Refusing to overwrite active keyslot 0 - please erase it first'],
    [
      'nothing named',
      erase(undefined),
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given',
    ],
    ['no match', erase('zork'), 'No keyslots match given (old) password for erase operation'],
    ['another slot’s', erase('zork', 0), "Given keyslot 0 doesn't contain the given old password for erase operation"],
    ['a free slot', erase(undefined, 3), 'Given keyslot 3 is already erased (inactive) '],
    [
      'the last slot',
      erase(undefined, 0),
      'Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - refusing operation',
    ],
    [
      'all that match',
      erase('first'),
      'All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation',
    ],
  ])('refused: %s', async (_name, what, message) => {
    const on = await volume();
    const before = on.bytes.slice();
    await expect(change(on, what)).rejects.toThrow(new BlockError('EINVAL', message));
    expect(Buffer.compare(on.bytes, before)).toBe(0);
  });

  test('no slot is free', async () => {
    const on = await volume();
    for (const slot of on.volume.header.slots) Object.assign(slot, { active: true });
    await expect(change(on, add('x'))).rejects.toThrow("Can't add a keyslot - all keyslots are in use");
  });

  test('by force a slot in use is overwritten, and the last one erased', async () => {
    const on = await volume();
    await change(on, add('other', 0), true);
    expect([opens(on.bytes, 'first'), opens(on.bytes, 'other')]).toEqual([false, true]);
    await change(on, erase('other'), true);
    expect(opens(on.bytes, 'other')).toBe(false);
  });

  test('a power cut at any write leaves the passphrase that is not changed, and no half of another', async () => {
    for (const slot of [1, 6]) {
      const on = await volume();
      const states: Uint8Array[] = [];
      const inner = on.volume.storage;
      const watched: LuksStorage = {
        ...inner,
        async write(offset, bytes) {
          // Sectors arrive one by one.
          for (let at = 0; at < bytes.length; at += 512) {
            await inner.write(offset + at, bytes.subarray(at, at + 512));
            if (at === 0 || at + 512 >= bytes.length) states.push(on.bytes.slice());
          }
        },
      };
      const parts = { host, crypto, volume: { ...on.volume, storage: watched }, force: false };
      const isActive = (state: Uint8Array) => decodeLuksHeader(state).slots[slot]?.active === true;
      await (await prepareSlots(parts, add('second', slot)))();
      const given = states.splice(0);
      await (await prepareSlots(parts, erase(undefined, slot)))();
      expect([given.length, states.length].every((count) => count > 2)).toBe(true);
      for (const state of [...given, ...states]) expect(opens(state, 'first')).toBe(true);
      for (const state of given) expect(opens(state, 'second')).toBe(isActive(state));
      for (const state of states.filter((each) => !isActive(each))) expect(opens(state, 'second')).toBe(false);
    }
  });
});
