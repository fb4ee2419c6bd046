/** The exports of a server, by name and by id (N-25, N-82). */
import { BlockError } from '../../core/errors.ts';
import type { NbdExport } from './export.ts';
import type { ExportDirectory, ExportInfo } from './export-info.ts';

export class Exports implements ExportDirectory {
  readonly #exports: NbdExport[] = [];

  get all(): readonly NbdExport[] {
    return this.#exports;
  }

  /** Throws BlockError EEXIST for a name or an id that is taken. */
  checkNew(name: string, id: string): void {
    for (const each of this.#exports) {
      if (each.id === id) throw new BlockError('EEXIST', `Block export id '${id}' is already in use`);
      if (each.info.name === name) throw new BlockError('EEXIST', `NBD server already has export named '${name}'`);
    }
  }

  add(added: NbdExport): void {
    this.#exports.push(added);
  }

  /** Throws BlockError ENOENT if there is none. */
  require(id: string): NbdExport {
    const found = this.#exports.find((each) => each.id === id);
    if (found === undefined) throw new BlockError('ENOENT', `Export '${id}' is not found`);
    return found;
  }

  remove(removed: NbdExport): void {
    const index = this.#exports.indexOf(removed);
    if (index >= 0) this.#exports.splice(index, 1);
  }

  list(): readonly ExportInfo[] {
    return this.#exports.map(({ info }) => info);
  }

  find(name: string): ExportInfo | undefined {
    const marked = name === '' ? this.#exports.find(({ isDefault }) => isDefault) : undefined;
    return (marked ?? this.#exports.find(({ info }) => info.name === name))?.info;
  }

  exportOf(info: ExportInfo): NbdExport | undefined {
    return this.#exports.find((each) => each.info === info);
  }
}
