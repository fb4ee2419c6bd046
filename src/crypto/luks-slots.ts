/** Giving a LUKS1 volume further passphrases, and taking them away (Q-AM-5). Wordings are those of qemu-img. */
import { BlockError } from '../core/errors.ts';
import type { Host } from '../core/host.ts';
import type { HostCrypto } from '../core/host-crypto.ts';
import { usableHash } from './algorithms.ts';
import { iterationsFor } from './calibrate.ts';
import { encodeMaterial, type LuksVolume, SLOT_ITERATIONS_MAX, unlock, unlockSlot } from './luks.ts';
import { encodeLuksHeader, KEY_SLOTS, materialBytes, SALT_LENGTH } from './luks-header.ts';
import { SECTOR } from './sector-cipher.ts';

/** A change of key slots; passphrases as bytes. */
export type SlotChange =
  | {
      readonly state: 'active';
      readonly newPassphrase: Uint8Array;
      /** Opens the volume, to get its key. */
      readonly passphrase: Uint8Array;
      /** Default: the first that is free. */
      readonly slot: number | undefined;
      readonly iterTimeMs: number;
    }
  | {
      readonly state: 'inactive';
      /** Without `slot`, all that it opens are erased; with it, that one must be among them. */
      readonly oldPassphrase: Uint8Array | undefined;
      readonly slot: number | undefined;
    };

export interface SlotParts {
  readonly host: Host;
  readonly crypto: HostCrypto;
  readonly volume: LuksVolume;
  /** Lifts what would destroy a slot in use, or the last one. */
  readonly force: boolean;
}

/**
 * Does all that may be refused, and resolves with the step that writes; it is durable when that resolves. A power cut leaves
 * the old slot, the new one, or a free one. Throws BlockError EINVAL.
 */
export function prepareSlots(parts: SlotParts, change: SlotChange): Promise<() => Promise<void>> {
  const { slot } = change;
  if (slot !== undefined && !(Number.isInteger(slot) && slot >= 0 && slot < KEY_SLOTS)) {
    throw bad(`Invalid keyslot ${slot} specified, must be between 0 and ${KEY_SLOTS - 1}`);
  }
  return change.state === 'active' ? prepareActive(parts, change) : prepareInactive(parts, change);
}

function bad(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

async function prepareActive(
  { host, crypto, volume, force }: SlotParts,
  change: Extract<SlotChange, { state: 'active' }>,
): Promise<() => Promise<void>> {
  const { header, storage } = volume;
  const index = change.slot ?? header.slots.findIndex(({ active }) => !active);
  const slot = header.slots[index];
  if (slot === undefined) throw bad("Can't add a keyslot - all keyslots are in use");
  if (slot.active && !force) throw bad(`Refusing to overwrite active keyslot ${index} - please erase it first`);
  const key = await unlock(crypto, volume, change.passphrase);
  const random = (target: Uint8Array) => host.random(target);
  const cost = { hash: usableHash(header.hash), length: header.keyBytes };
  const salt = new Uint8Array(SALT_LENGTH);
  random(salt);
  const iterations = await iterationsFor(host, crypto, cost, change.iterTimeMs, SLOT_ITERATIONS_MAX);
  const next = { active: true, iterations, salt, materialOffset: slot.materialOffset };
  const material = await encodeMaterial(crypto, header, next, { key, passphrase: change.newPassphrase, random });
  return async () => {
    // While the material is neither the old nor the new, no header says that it is any.
    if (slot.active) {
      slot.active = false;
      await writeHeader(volume);
    }
    await storage.write(slot.materialOffset * SECTOR, material);
    await storage.flush();
    Object.assign(slot, next);
    await writeHeader(volume);
  };
}

/** Its second sector first: a slot that lies in both has its state in the other, so that no torn write makes it what it is not. */
async function writeHeader({ header, storage }: LuksVolume): Promise<void> {
  const bytes = encodeLuksHeader(header);
  await storage.write(SECTOR, bytes.subarray(SECTOR));
  await storage.flush();
  await storage.write(0, bytes.subarray(0, SECTOR));
  await storage.flush();
}

const DESTROYS = 'will erase all the data in the image irreversibly';

async function prepareInactive(
  { host, crypto, volume, force }: SlotParts,
  { slot, oldPassphrase }: Extract<SlotChange, { state: 'inactive' }>,
): Promise<() => Promise<void>> {
  const { slots } = volume.header;
  const chosen = slot === undefined ? await matching(crypto, volume, oldPassphrase) : [slot];
  if (slot !== undefined) {
    if (oldPassphrase !== undefined && (await unlockSlot(crypto, volume, slot, oldPassphrase)) === undefined) {
      throw bad(`Given keyslot ${slot} doesn't contain the given old password for erase operation`);
    }
    // Its blank at the end is qemu-img's.
    if (slots[slot]?.active === false && !force) throw bad(`Given keyslot ${slot} is already erased (inactive) `);
  }
  const isLast = !slots.some(({ active }, index) => active && !chosen.includes(index));
  if (isLast && !force) {
    throw slot === undefined
      ? bad(
          `All the active keyslots match the (old) password that was given and erasing them ${DESTROYS} - refusing operation`,
        )
      : bad(`Attempt to erase the only active keyslot ${slot} which ${DESTROYS} - refusing operation`);
  }
  return async () => {
    for (const index of chosen) await erase(host, volume, index);
  };
}

/** Slots that a passphrase opens. */
async function matching(
  crypto: HostCrypto,
  volume: LuksVolume,
  passphrase: Uint8Array | undefined,
): Promise<readonly number[]> {
  if (passphrase === undefined) {
    const text =
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given';
    throw bad(text);
  }
  const effort = { iterations: 0 };
  const found: number[] = [];
  for (const index of volume.header.slots.keys()) {
    if ((await unlockSlot(crypto, volume, index, passphrase, effort)) !== undefined) found.push(index);
  }
  if (found.length === 0) throw bad('No keyslots match given (old) password for erase operation');
  return found;
}

/** The header says first that the slot is free; then its material is overwritten, so that nobody can open it ever again. */
async function erase(host: Host, volume: LuksVolume, index: number): Promise<void> {
  const { header, storage } = volume;
  const slot = header.slots[index];
  if (slot === undefined) return;
  Object.assign(slot, { active: false, iterations: 0, salt: new Uint8Array(SALT_LENGTH) });
  await writeHeader(volume);
  const garbage = new Uint8Array(materialBytes(header.keyBytes));
  host.random(garbage);
  await storage.write(slot.materialOffset * SECTOR, garbage);
  await storage.flush();
}
