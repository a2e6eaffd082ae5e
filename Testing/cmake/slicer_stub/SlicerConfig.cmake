# A stand-in for Slicer's CMake package, enough to configure, build, install and test an extension of Python files.
# It proves that the lists name existing files and forget none, that keywords and metadata are right, and what is
# installed where. It proves nothing about Slicer itself.

get_filename_component(_stub "${CMAKE_CURRENT_LIST_FILE}" DIRECTORY)

set(Slicer_VERSION 5.10.0)
set(Slicer_USE_FILE ${_stub}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${_stub}/ExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${_stub}/ExtensionCPack.cmake)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.10/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
