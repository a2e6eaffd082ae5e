# Slicer's extension index needs all of these.

foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${name}}" STREQUAL "")
    message(FATAL_ERROR "extension metadata: EXTENSION_${name} is not set")
  endif()
endforeach()

foreach(url ${EXTENSION_HOMEPAGE} ${EXTENSION_ICONURL} ${EXTENSION_SCREENSHOTURLS})
  if(NOT url MATCHES "^https://")
    message(FATAL_ERROR "extension metadata: '${url}' is no https address")
  endif()
endforeach()
