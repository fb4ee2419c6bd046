/** Names, opening and folders of a simulated host. */
import type { HostFile, HostFileInfo, HostFileMode, HostFiles } from '../core/host.ts';
import type { SimOperation } from './sim-faults.ts';
import { SimFile } from './sim-file.ts';
import { type SimWorld, simError } from './sim-world.ts';

export function simFiles(world: SimWorld): HostFiles {
  const enter = async (operation: SimOperation, path: string): Promise<string> => {
    const name = world.resolve(path);
    await world.enter({ operation, path: name });
    return name;
  };

  return {
    temporaryFolder: '/var/tmp',

    async open(path: string, mode: HostFileMode): Promise<HostFile> {
      return openFile(world, await enter('open', path), mode);
    },

    async stat(path: string): Promise<HostFileInfo> {
      const found = world.find(await enter('stat', path));
      if (found === undefined) throw simError('ENOENT');
      if (found === 'directory') {
        return { kind: 'directory', size: 4096, allocated: 4096, identity: `sim:${world.resolve(path)}` };
      }
      const content = world.image.files.get(found.file)?.content;
      return {
        kind: found.kind,
        size: content?.length ?? 0,
        allocated: content?.allocated,
        identity: `sim:${found.file}`,
      };
    },

    async resolve(path: string): Promise<string> {
      return world.resolve(path);
    },

    async remove(path: string): Promise<void> {
      const name = await enter('remove', path);
      const found = world.find(name);
      if (found === undefined) throw simError('ENOENT');
      if (found === 'directory') throw simError('EISDIR');
      world.changeName({ kind: 'remove', path: name });
    },

    async rename(from: string, to: string): Promise<void> {
      const source = await enter('rename', from);
      const target = world.resolve(to);
      if (world.find(source) === undefined) throw simError('ENOENT');
      if (world.find(target) === 'directory') throw simError('EISDIR');
      world.changeName({ kind: 'rename', from: source, to: target });
    },

    async list(path: string): Promise<string[]> {
      const folder = await enter('list', path);
      const found = world.find(folder);
      if (found === undefined) throw simError('ENOENT');
      if (found !== 'directory') throw simError('ENOTDIR');
      const prefix = folder === '' || folder.endsWith('/') ? folder : `${folder}/`;
      const inside = [...world.image.names.keys(), ...world.image.links.keys()].filter((name) =>
        name.startsWith(prefix),
      );
      return [...new Set(inside.map((name) => name.slice(prefix.length).split('/')[0] ?? ''))].sort();
    },
  };
}

function openFile(world: SimWorld, name: string, mode: HostFileMode): SimFile {
  const found = world.find(name);
  if (found === 'directory') throw simError('EISDIR');
  if (mode.direct && !world.has('direct')) throw simError('EINVAL');
  if (found === undefined) {
    if (mode.create === undefined || mode.create === 'never') throw simError('ENOENT');
    return new SimFile(world, world.makeFile(name), name, mode);
  }
  if (mode.create === 'new') throw simError('EEXIST');
  if (mode.write && world.image.files.get(found.file)?.readOnly) throw simError('EACCES');
  if (mode.create === 'truncate' && found.kind === 'regular') {
    world.change(found.file, name, { kind: 'truncate', length: 0 });
  }
  return new SimFile(world, found.file, name, mode);
}
