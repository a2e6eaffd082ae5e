# The macros that an extension's CMakeLists.txt call.

include(CTest)

set(EXTENSION_NAME ${PROJECT_NAME})

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(PARSE_ARGV 0 MODULE "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES")
  if(MODULE_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords given to slicerMacroBuildScriptedModule(): ${MODULE_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT MODULE_NAME)
    message(FATAL_ERROR "NAME is mandatory")
  endif()
  set(subfolder "")
  if(MODULE_WITH_SUBDIR)
    get_filename_component(subfolder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  endif()
  foreach(file IN LISTS MODULE_SCRIPTS MODULE_RESOURCES)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file} AND EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file}.py)
      string(APPEND file .py)
    endif()
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "slicerMacroBuildScriptedModule(${MODULE_NAME}) given nonexistent file '${file}'")
    endif()
    if(file MATCHES "^\\.\\.")
      message(FATAL_ERROR "'${file}' is outside of ${MODULE_NAME}: Slicer would copy it, but not package it")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    set(place ${Slicer_QTSCRIPTEDMODULES_LIB_DIR}/${subfolder})
    configure_file(${file} ${CMAKE_BINARY_DIR}/${place}/${file} COPYONLY)
    install(FILES ${file} DESTINATION ${place}/${folder} COMPONENT RuntimeLibraries)
  endforeach()
  _fail_on_forgotten_files()
endfunction()

# Slicer would package the extension without them and say nothing.
function(_fail_on_forgotten_files)
  file(GLOB_RECURSE present RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/*)
  list(FILTER present EXCLUDE REGEX "__pycache__|CMakeLists\\.txt$")
  list(REMOVE_ITEM present ${MODULE_SCRIPTS} ${MODULE_RESOURCES})
  if(present)
    message(FATAL_ERROR "in no list of ${MODULE_NAME}, so missing from the package: ${present}")
  endif()
endfunction()

# Slicer runs the self-test of the module's file; here the stand-in host runs it from the installed tree.
function(slicer_add_python_unittest)
  cmake_parse_arguments(PARSE_ARGV 0 TEST "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS")
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${TEST_SCRIPT})
    message(FATAL_ERROR "slicer_add_python_unittest: no ${TEST_SCRIPT}")
  endif()
  get_filename_component(name ${TEST_SCRIPT} NAME_WE)
  add_test(
    NAME py_${TEST_TESTNAME_PREFIX}${name}
    COMMAND
      ${SLICER_STUB_PYTHON} -I -B ${SLICER_STUB_RUNNER}
      ${CMAKE_INSTALL_PREFIX}/${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${TEST_SCRIPT}
  )
endfunction()
