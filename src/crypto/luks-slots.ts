/** Giving a LUKS1 volume further passphrases, and taking them away (Q-AM-5). */
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
      /** All slots that it opens are erased. */
      readonly oldPassphrase: Uint8Array | undefined;
      readonly slot: number | undefined;
    };

/**
 * Changes the header; durable when it resolves. A power cut leaves the old slot or the new one. `force` lifts what would destroy a
 * slot in use, or the last. Throws BlockError EINVAL.
 */
export async function changeSlots(
  host: Host,
  crypto: HostCrypto,
  volume: LuksVolume,
  change: SlotChange,
  force: boolean,
): Promise<void> {
  checkSlot(change.slot);
  if (change.state === 'active') await activate(host, crypto, volume, change, force);
  else await deactivate(host, crypto, volume, change, force);
}

function bad(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

function checkSlot(slot: number | undefined): void {
  if (slot === undefined || (Number.isInteger(slot) && slot >= 0 && slot < KEY_SLOTS)) return;
  throw bad(`Invalid keyslot ${slot} specified, must be between 0 and ${KEY_SLOTS - 1}`);
}

async function activate(
  host: Host,
  crypto: HostCrypto,
  { header, algorithms, storage }: LuksVolume,
  change: Extract<SlotChange, { state: 'active' }>,
  force: boolean,
): Promise<void> {
  const index = change.slot ?? header.slots.findIndex(({ active }) => !active);
  const slot = header.slots[index];
  if (slot === undefined) throw bad("Can't add a keyslot - all keyslots are in use");
  if (slot.active && !force) throw bad(`Refusing to overwrite active keyslot ${index} - please erase it first`);
  const volume = { header, algorithms, storage };
  const key = await unlock(crypto, volume, change.passphrase);
  const random = (target: Uint8Array) => host.random(target);
  const cost = { hash: usableHash(header.hash), length: header.keyBytes };
  const salt = new Uint8Array(SALT_LENGTH);
  random(salt);
  const iterations = await iterationsFor(host, crypto, cost, change.iterTimeMs, SLOT_ITERATIONS_MAX);
  const next = { active: true, iterations, salt, materialOffset: slot.materialOffset };
  const secrets = { key, passphrase: change.newPassphrase, random };
  const material = await encodeMaterial(crypto, header, next, secrets);
  // While the material is neither the old nor the new, no header says that it is any.
  if (slot.active) {
    slot.active = false;
    await writeHeader(volume);
  }
  await storage.write(slot.materialOffset * SECTOR, material);
  await storage.flush();
  Object.assign(slot, next);
  await writeHeader(volume);
}

/** Its second sector first: a slot that lies in both has its state in the other, so that no torn write makes it what it is not. */
async function writeHeader({ header, storage }: LuksVolume): Promise<void> {
  const bytes = encodeLuksHeader(header);
  await storage.write(SECTOR, bytes.subarray(SECTOR));
  await storage.flush();
  await storage.write(0, bytes.subarray(0, SECTOR));
  await storage.flush();
}

async function deactivate(
  host: Host,
  crypto: HostCrypto,
  volume: LuksVolume,
  change: Extract<SlotChange, { state: 'inactive' }>,
  force: boolean,
): Promise<void> {
  const { slots } = volume.header;
  const chosen = change.slot === undefined ? await matching(crypto, volume, change.oldPassphrase) : [change.slot];
  const left = slots.filter(({ active }, index) => active && !chosen.includes(index)).length;
  const isLast = left === 0 && slots.some(({ active }) => active);
  if (isLast && !force) {
    throw change.slot === undefined
      ? bad(
          `All the active keyslots match the (old) password that was given and erasing them ${DESTROYS} - refusing operation`,
        )
      : bad(`Attempt to erase the only active keyslot ${change.slot} which ${DESTROYS} - refusing operation`);
  }
  for (const index of chosen) await erase(host, volume, index);
}

const DESTROYS = 'will erase all the data in the image irreversibly';

/** Slots that a passphrase opens. */
async function matching(crypto: HostCrypto, volume: LuksVolume, passphrase: Uint8Array | undefined): Promise<number[]> {
  if (passphrase === undefined) throw bad("Either 'keyslot' or 'old-secret' must be given to deactivate keyslots");
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
