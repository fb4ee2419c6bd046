/** Passphrases of an encrypted image, given and taken away (Q-AM-5). */
import type { AmendOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { DEFAULT_ITER_TIME_MS } from '../../crypto/luks-new.ts';
import { prepareSlots, type SlotChange } from '../../crypto/luks-slots.ts';
import { cryptoOf } from '../../crypto/provider.ts';
import { passphraseOf } from '../../crypto/secrets.ts';
import { keySecretOf } from './encryption.ts';
import type { Qcow2Image } from './image.ts';

/** Options of `amend`. */
export interface KeySlotOptions {
  readonly 'encrypt.state': string | undefined;
  readonly 'encrypt.new-secret': string | undefined;
  readonly 'encrypt.old-secret': string | undefined;
  readonly 'encrypt.keyslot': number | undefined;
  readonly 'encrypt.iter-time': number | undefined;
}

function bad(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

/**
 * Does all that may be refused, and resolves with the step that writes. `force` lifts what would overwrite a slot in use, or leave
 * none. Throws BlockError.
 */
export async function prepareKeySlots(
  image: Qcow2Image,
  options: KeySlotOptions,
  { force = false, signal }: AmendOptions,
): Promise<() => Promise<void>> {
  const { luks: volume, host } = image;
  if (volume === undefined) throw new BlockError('ENOTSUP', 'Only LUKS encryption options can be amended');
  const change = slotChange(image, options);
  return prepareSlots({ host, crypto: await cryptoOf(host, signal), volume, force }, change);
}

function slotChange({ host, keySecret }: Qcow2Image, options: KeySlotOptions): SlotChange {
  const {
    'encrypt.state': state,
    'encrypt.new-secret': newSecret,
    'encrypt.old-secret': oldSecret,
    'encrypt.keyslot': slot,
    'encrypt.iter-time': iterTimeMs,
  } = options;
  if (state === undefined) throw bad("Parameter 'state' is missing");
  if (state === 'active') {
    if (newSecret === undefined) throw bad("'new-secret' is required to activate a keyslot");
    if (oldSecret !== undefined) throw bad("'old-secret' must not be given when activating keyslots");
    return {
      state,
      slot,
      newPassphrase: passphraseOf(host, newSecret),
      passphrase: passphraseOf(host, keySecretOf(keySecret)),
      iterTimeMs: iterTimeMs ?? DEFAULT_ITER_TIME_MS,
    };
  }
  if (state !== 'inactive') throw bad(`Parameter 'state' does not accept value '${state}'`);
  if (newSecret !== undefined) throw bad("'new-secret' must not be given when erasing keyslots");
  if (iterTimeMs !== undefined) throw bad("'iter-time' must not be given when erasing keyslots");
  return { state, slot, oldPassphrase: oldSecret === undefined ? undefined : passphraseOf(host, oldSecret) };
}
