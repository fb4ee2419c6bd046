/** Which names lead to quick storage, so that calls on them need not be made by other threads. */
import path from 'node:path';
import { codeOf } from '../core/errors.ts';
import { AT_ONCE, THREAD_POOL } from './calls.ts';
import { kindOf, storageOf } from './storage.ts';

/**
 * Whatever a name leads to may hang: a network, FUSE, the other end of a pipe. So the pool looks at each name once, before
 * anything is done with it at once. What it found is believed for good: this is for programs that are soon through.
 */
export class QuickNames {
  readonly #names = new Map<string, Promise<boolean>>();
  readonly #folders = new Map<string, Promise<boolean>>();

  /** The file that was opened by this name is known to be one. */
  remember(name: string): void {
    this.#names.set(path.resolve(name), Promise.resolve(true));
  }

  /** `fresh`: the name is only used to make a file where nothing is. */
  isQuick(name: string, fresh = false): Promise<boolean> {
    const full = path.resolve(name);
    const known = this.#names.get(full);
    if (known !== undefined) return known;
    if (fresh) return this.#isFolderQuick(path.dirname(full));
    const looked = this.#look(full);
    this.#names.set(full, looked);
    return looked;
  }

  async #look(name: string): Promise<boolean> {
    // At the same time, as the new image's name leads to nothing.
    const folder = this.#isFolderQuick(path.dirname(name));
    try {
      const [{ mode }, { quick }] = await Promise.all([THREAD_POOL.stat(name), storageOf(name, THREAD_POOL)]);
      return quick && kindOf(mode) === 'regular';
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') return false;
    }
    // Nothing is there, or a link to nothing, which may be a link to elsewhere.
    if (!(await folder)) return false;
    return AT_ONCE.readLink(name).then(
      () => false,
      (error) => codeOf(error) === 'ENOENT',
    );
  }

  #isFolderQuick(folder: string): Promise<boolean> {
    const known = this.#folders.get(folder) ?? storageOf(folder, THREAD_POOL).then(({ quick }) => quick);
    this.#folders.set(folder, known);
    return known;
  }
}
